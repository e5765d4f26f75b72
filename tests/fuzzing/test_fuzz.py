"""A bounded run of the fuzzer: mutated archives, and what must hold for every one of them."""

import importlib.util
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from fuzz import MEMORY  # noqa: E402
from mutating import mutate  # noqa: E402
from seeds import built, real  # noqa: E402
from target import judge_and_unpack  # noqa: E402


@pytest.fixture
def drop():
    """Return a function that takes some bytes as a drop, in a folder in memory where there is one."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield lambda data: judge_and_unpack(data, Path(folder))


def test_every_seed_is_taken(drop):
    """
    What the mutations start from is taken, so that they begin where everything is read.
    """
    assert {"taken"} == {drop(data) for data in [*built(), *real()]}


def test_mutations_break_no_promise(drop):
    """
    Three thousand mutated archives are taken within their limits or refused under a code, by many different ones.
    """
    chance = random.Random(20)
    pool = built()

    verdicts = Counter(drop(mutate(chance.choice(pool), chance)) for _ in range(3000))

    assert 3000 == verdicts.total()
    assert len(verdicts) > 15
    assert verdicts["taken"] > 300


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_guided_by_coverage(tmp_path):
    """
    Twenty thousand inputs that are chosen for the code that they reach break no promise either.
    """
    options = ["--seconds", "60", "--corpus", str(tmp_path / "corpus"), "-runs=20000"]
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}

    from_a_shell = ["sh", "-c", '"$@"; exit $?', "sh"]  # a child of ours would be measured with our own peak of memory
    run = subprocess.run(
        [*from_a_shell, sys.executable, str(HERE / "fuzz.py"), *options],
        capture_output=True,
        text=True,
        check=False,
        env=unmeasured,
    )

    assert 0 == run.returncode, run.stderr[-4000:]
    assert "Done 20000 runs" in run.stderr
