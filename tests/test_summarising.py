"""Summarising: what a page would show of a batch, and the archive's folder tree with its counts."""

from concurrent.futures import ThreadPoolExecutor

from inbox.database.models import RunSummary
from inbox.database.operations import get_batch_by_id
from inbox.database.queries import Entry
from inbox.events import BatchClosed
from inbox.pipeline.summarising import nest


def entry(position, path, state="success", size=10):
    return Entry(position, f"d{position}", path, state, size, None, 1, None, None, None, 1)


def taken(house, members=("a.txt", "docs/b.pdf", "docs/deep/c.txt", "__MACOSX/._a")):
    house.drop(members=members)
    house.take()
    return house.heard(type(house.events[0]))[0].batch_id


def summary_of(house):
    with house.sessions.reading() as session:
        return session.query(RunSummary).one()


def test_summary_shows_a_batch_as_a_page_would(house):
    """
    Name, times, counts, bytes, the slowest and the failed files with their reasons are in the summary.
    """
    batch_id = taken(house)
    house.clock.go_on(5)
    house.work(failing={"docs/b.pdf"})
    house.closing.round()
    shown = summary_of(house).ui_json

    assert ("drop.zip", batch_id, "partial", 5.0) == (
        shown["name"],
        shown["batch_id"],
        shown["state"],
        shown["duration_seconds"],
    )
    assert (4, 3, 1, 2, 1, 0) == tuple(
        shown[name] for name in ("members", "files", "skipped", "succeeded", "failed", "unaccounted")
    )
    assert {"pdf": 1, "text": 2} == shown["by_type"]
    assert [("docs/b.pdf", "PARSE_ERROR", "broken")] == [
        (failure["member_path"], failure["error_type"], failure["error_message"]) for failure in shown["failures"]
    ]
    assert 3 == len(shown["slowest"])


def test_tree_counts_what_lies_below(house):
    """
    Each folder of the tree counts all members below it, by state and in bytes.
    """
    taken(house)
    house.work()
    house.closing.round()
    tree = summary_of(house).nested_summary

    assert (4, {"skipped": 1, "success": 3}) == (tree["members"], tree["states"])
    assert {"docs", "__MACOSX"} == tree["folders"].keys()
    assert (2, 14) == (tree["folders"]["docs"]["members"], tree["folders"]["docs"]["size_bytes"])
    assert 1 == tree["folders"]["docs"]["folders"]["deep"]["members"]


def test_counts_are_columns_too(house):
    """
    How many files there are, succeeded and failed can be asked without reading the summary.
    """
    taken(house)
    house.work(failing={"a.txt", "docs/b.pdf"})
    house.closing.round()
    summary = summary_of(house)

    assert (3, 1, 2) == (summary.file_count, summary.success_count, summary.error_count)
    assert get_batch_by_id(summary.batch_id).run_id == summary.run_id


def test_too_many_folders_are_folded():
    """
    Past its largest number of folders the tree counts the rest in their nearest ancestor.
    """
    tree = nest((entry(number, f"f{number}/a") for number in range(10)), max_folders=4)

    assert (10, 3, 7) == (tree["members"], len(tree["folders"]), tree["folded"])


def test_one_of_many_closers_closes(house):
    """
    Of several services that close a finished batch at once, one does, and writes one summary.
    """
    batch_id = taken(house)
    house.work()
    with ThreadPoolExecutor(4) as pool:
        closings = list(pool.map(lambda _: house.closing.summariser.close(batch_id), range(8)))

    assert 1 == sum(closing is not None for closing in closings)
    assert summary_of(house)


def test_unfinished_batch_stays_open(house):
    """
    A batch with files under way is neither closed nor reported.
    """
    taken(house)
    house.closing.round()

    assert [] == house.heard(BatchClosed)
    assert house.closing.summariser.close("missing") is None
