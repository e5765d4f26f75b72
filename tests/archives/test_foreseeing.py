"""What is foreseen for an archive is what the service then does with it: over every sample, honest and hostile."""

import os
from dataclasses import dataclass

import pytest
from pipeline_parts import QUIET
from test_accepting import HONEST, SKIPPED
from test_refusing import HOSTILE
from zips import Member, archive

from inbox import events
from inbox.pipeline.explaining import Looker, Service, Verdict, judge

WHOLE = archive([Member("a.txt", b"some content"), "b/c.txt"])
SAMPLES = {
    **{f"honest, {name}": archive([member]) for name, member in HONEST.items()},
    **{f"skipped, {name}": archive([member]) for name, (member, _) in SKIPPED.items()},
    **{f"hostile, {name}": data for name, (data, _) in HOSTILE.items()},
    **{f"cut at {length}": WHOLE[:length] for length in range(0, len(WHOLE), 7)},
    **{f"reserved from {length}": WHOLE[:length].ljust(len(WHOLE), b"\0") for length in range(0, len(WHOLE), 31)},
    "text": b"no archive at all",
    "tar": b"folder/".ljust(512, b"\0"),
    "empty archive": archive([]),
    "whole": WHOLE,
}
MEANS = {
    events.BatchRegistered: Verdict.TAKEN,
    events.BatchRefused: Verdict.REFUSED,
    events.DropWaits: Verdict.WAITS,
    events.DropLeftAlone: Verdict.LEFT_ALONE,
}


@dataclass
class Sample:
    name: str
    data: bytes


@pytest.fixture
def samples():
    """Each content once, under a name that a file system takes."""
    unique = {data: kind for kind, data in SAMPLES.items()}
    return [Sample(f"{number:03} {kind}.zip", data) for number, (data, kind) in enumerate(unique.items())]


def listing(folder):
    """Return everything below a folder with what would tell a change."""
    return {
        str(path): (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        for path in (folder, *folder.rglob("*"))
        for status in [path.lstat()]
    }


def explain_all(house, samples):
    service = Service(house.volume, house.unpacker.terms, QUIET, True, house.intake.timing)
    looker = Looker(service, house.clock, house.sessions)
    explained = (judge(looker.look(looker.find(sample.name), deep=True)) for sample in samples)
    return {one.facts.name: (one.ruling.verdict, one.ruling.reason_code, one.facts.contents) for one in explained}


def test_service_does_what_was_foreseen(house, samples):
    """
    Verdict, code and counts of every sample are those that the service comes to, and foreseeing changes nothing.
    """
    for sample in samples:
        house.drop(sample.name, sample.data)
    house.clock.go_on(60)
    before = listing(house.volume.base)
    foreseen = explain_all(house, samples)
    after = listing(house.volume.base)
    house.take()
    done = {
        event.drop: (MEANS[type(event)], getattr(event, "reason_code", ""))
        for event in house.events
        if type(event) in MEANS
    }
    counts = {event.drop: (event.members, event.skipped) for event in house.heard(events.BatchRegistered)}

    assert before == after
    assert len(SAMPLES) - 10 < len(samples) == len(done)
    assert done == {name: (verdict, code) for name, (verdict, code, _) in foreseen.items()}
    assert counts == {
        name: (contents.members, contents.skipped)
        for name, (verdict, _, contents) in foreseen.items()
        if verdict is Verdict.TAKEN
    }


def test_service_treats_known_content_as_foreseen(house, samples):
    """
    Every sample that was taken or refused is, dropped again, foreseen as a duplicate or as refused like before.
    """
    for sample in samples:
        house.drop(sample.name, sample.data)
    house.clock.go_on(60)
    house.take()
    house.work()
    house.closing.round()
    gone = [sample for sample in samples if sample.name not in os.listdir(house.volume.uploads)]
    for sample in gone:
        house.drop(sample.name, sample.data)
    house.events.clear()
    house.clock.go_on(60)
    foreseen = {name: verdict for name, (verdict, *_) in explain_all(house, gone).items()}
    house.take()
    recognised = {
        event.drop: Verdict.REFUSED if event.state == "quarantined" else Verdict.DUPLICATE
        for event in house.heard(events.DropRecognised)
    }

    assert {Verdict.REFUSED, Verdict.DUPLICATE} == set(recognised.values())
    assert recognised == foreseen
