"""Registering: every member gets its row, all in one transaction, and the batch enters processing with it."""

from dataclasses import replace

import pytest
from databases import lease_it, make_batch

from inbox.core.errors import LeaseLostError, PermanentError
from inbox.database import batches
from inbox.database.operations import get_batch_by_id, get_batch_files
from inbox.domain import Extraction, MemberFile, NameOrigin, SkippedMember, derive_doc_id

EXTRACTION = Extraction(
    files=(MemberFile("docs/a.pdf", 10, "a" * 64, 0, "pdf"), MemberFile("b.txt", 20, "b" * 64, 2, "text")),
    skipped=(SkippedMember("__MACOSX/._a", "JUNK", 5, 1),),
    directories=1,
    written_bytes=30,
)


def leased(house, batch_id="b1"):
    make_batch(batch_id, now=house.clock.now())
    return lease_it(batch_id, owner=house.owner, now=house.clock.now())


def test_members_are_files_and_skipped(house):
    """
    Every member has a row with its place, size and hash, or its reason, and the batch says how many there are.
    """
    run_id = house.registrar.register(leased(house), EXTRACTION)
    batch, rows = get_batch_by_id("b1"), get_batch_files("b1")

    assert ("processing", 3, 1, run_id) == (batch.status, batch.total_files, batch.total_directories, batch.run_id)
    assert [
        ("docs/a.pdf", "extracted/b1/docs/a.pdf", "a.pdf", "pdf", 10, "a" * 64, "pending", None),
        ("__MACOSX/._a", "", "._a", "unknown", 5, None, "skipped", "JUNK"),
        ("b.txt", "extracted/b1/b.txt", "b.txt", "text", 20, "b" * 64, "pending", None),
    ] == [
        (
            row.member_path,
            row.file_path,
            row.file_name,
            row.file_type,
            row.size_bytes,
            row.content_sha256,
            row.status,
            row.skip_reason,
        )
        for row in rows
    ]
    assert [derive_doc_id("b1", row.member_path) for row in rows] == [row.doc_id for row in rows]
    assert {run_id} == {row.run_id for row in rows}


def test_origin_of_a_name_stays_on_its_row(house):
    """
    The raw bytes of a name, and how they were read, stand on the member's row, written or skipped; others have nothing.
    """
    names = {
        0: NameOrigin("書.txt".encode("cp932"), "cp932", 0.25, ("SAME_FOLDED",), "書.txt"),
        1: NameOrigin(b"\xff", "utf-8"),
    }
    house.registrar.register(leased(house), replace(EXTRACTION, names=names))

    assert [
        {
            "raw": "8f912e747874",
            "encoding": "cp932",
            "confidence": 0.25,
            "remarks": ["SAME_FOLDED"],
            "folded": "書.txt",
        },
        {"raw": "ff", "encoding": "utf-8"},
        None,
    ] == [row.name_origin for row in get_batch_files("b1")]


def test_lost_lease_writes_nothing(house):
    """
    Whoever lost the batch to another worker writes no row.
    """
    lease = leased(house)
    with house.sessions.writing() as session:
        batches.rescue_batch(lease.token, max_attempts=3, now=house.clock.now(), session=session)

    with pytest.raises(LeaseLostError):
        house.registrar.register(lease, EXTRACTION)

    assert [] == get_batch_files("b1")


def test_rows_that_exist_stay(house):
    """
    Registered again after a crash, rows keep what they know.
    """
    lease = leased(house)
    house.registrar.register(lease, EXTRACTION)
    before = {row.doc_id: (row.id, row.run_id) for row in get_batch_files("b1")}
    with house.sessions.writing() as session:
        job = session.get_one(type(get_batch_by_id("b1")), get_batch_by_id("b1").id)
        job.status, job.lease_token = "received", None
    house.registrar.register(lease_it("b1", owner=house.owner, now=house.clock.now()), EXTRACTION)

    assert before == {row.doc_id: (row.id, row.run_id) for row in get_batch_files("b1")}


def test_two_members_never_share_a_row(house):
    """
    An extraction that names one path twice is refused, since a row would stand for two members.
    """
    twice = Extraction((MemberFile("a", 1, "a", 0), MemberFile("a", 2, "b", 1)), (), 0, 3)

    with pytest.raises(PermanentError, match="share a row"):
        house.registrar.register(leased(house), twice)


def test_empty_archive_is_registered(house):
    """
    An archive without members becomes a batch in processing that has nothing to wait for.
    """
    house.registrar.register(leased(house), Extraction((), (), 0, 0))

    assert ("processing", 0) == (get_batch_by_id("b1").status, get_batch_by_id("b1").total_files)
