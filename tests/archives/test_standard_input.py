"""What Info-ZIP packs from its standard input: a member `-` that calls itself a pipe, and is a file."""

import subprocess
from shutil import which

import pytest
from zips import PIPE, Member, archive, tree


def test_pipe_with_content_is_a_file(unpack):
    """
    A pipe holds nothing; what has content was read from one, and is taken.
    """
    extraction, target = unpack(archive([Member("-", b"content", mode=PIPE), Member("p", b"", mode=PIPE)]))

    assert {"-": b"content"} == tree(target)
    assert [("p", "SPECIAL_FILE")] == [(member.path, member.reason_code) for member in extraction.skipped]


@pytest.mark.parametrize("command", ["cat a.txt | zip -q out.zip -", "cat a.txt | zip -q > out.zip"])
def test_standard_input_of_zip_is_taken(unpack, tmp_path, command):
    """
    So it comes from the real program, into a file and into another pipe.
    """
    if which("zip") is None:
        pytest.skip("zip is not installed")
    (tmp_path / "a.txt").write_bytes(b"content")
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)

    _, target = unpack((tmp_path / "out.zip").read_bytes())

    assert {"-": b"content"} == tree(target)
