"""A walk over some of the points at which a crash can be told from no crash; walking.py walks them all."""

import pytest
from walking import NoCompilerError, compiled, databases, walk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
POINTS = {"all": 5, "one": 3}


@pytest.mark.parametrize("kind", POINTS)
def test_crash_at_a_point_is_only_a_late_start(tmp_path, database_kind, kind):
    """
    Killed just before any call that changes the volume or the database, wholly or in one process, the service started
    again comes to the same end as without a crash: nothing lost, doubled, stuck or left lying about.
    """
    try:
        library = compiled(tmp_path)
    except NoCompilerError as error:
        pytest.skip(str(error))
    with databases(database_kind, tmp_path) as make_database:
        walked = walk(tmp_path, make_database, library, kind=kind, points=POINTS[kind])

    assert [] == walked.findings
    assert walked.points >= POINTS[kind] - 1
