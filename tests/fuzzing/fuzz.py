"""
Drop mutated archives for as long as one likes: `make fuzz ARGS='--seconds 3600'`.

Coverage-guided by atheris where it is installed (`pip install atheris`; arguments that begin with a single dash go to
libFuzzer), else by chance alone. A failure leaves the bytes that caused it beside the corpus.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
HANG_SECONDS = 10
MEMORY_MIB = 700


def main() -> None:
    parser = argparse.ArgumentParser(description="Drop mutated archives and hold the reader to its promises.")
    parser.add_argument("--seconds", type=int, default=60, help="how long (default: %(default)s)")
    parser.add_argument("--corpus", type=Path, default=Path(".fuzz"), help="where inputs are kept (default: .fuzz)")
    parser.add_argument("--by-chance", action="store_true", help="without coverage guidance")
    options, rest = parser.parse_known_args()
    options.corpus.mkdir(parents=True, exist_ok=True)
    try:
        import atheris
    except ImportError:
        atheris = None
    if atheris is None or options.by_chance:
        by_chance(options.seconds, options.corpus)
        return
    with atheris.instrument_imports(include=["inbox.archives"]):
        import inbox.archives  # noqa: F401 - instrumented before anybody else imports it
    from mutating import mutate
    from seeds import built, real
    from target import judge_and_unpack

    for number, seed in enumerate([*built(), *real()]):
        (options.corpus / f"seed-{number:02}.zip").write_bytes(seed)
    scratch = tempfile.TemporaryDirectory(dir=MEMORY)

    def one_input(data: bytes) -> None:
        folder = Path(tempfile.mkdtemp(dir=scratch.name))
        judge_and_unpack(data, folder)
        folder.rmdir()

    def custom_mutator(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.3:
            return bytes(atheris.Mutate(data, max_size))
        return mutate(data, chance, max_size)

    atheris.Setup(
        [
            sys.argv[0],
            *(f"-max_total_time={options.seconds}", f"-timeout={HANG_SECONDS}", f"-rss_limit_mb={MEMORY_MIB}"),
            *("-max_len=65536", "-print_final_stats=1", f"-artifact_prefix={options.corpus}/failure-"),
            *rest,
            str(options.corpus),
        ],
        one_input,
        custom_mutator=custom_mutator,
    )
    atheris.Fuzz()


def by_chance(seconds: float, corpus: Path) -> None:
    """Mutate the seeds, and what came of them, until the time is up; prints what was seen."""
    from mutating import mutate
    from seeds import built, real
    from target import judge_and_unpack

    chance, pool = random.Random(), [*built(), *real()]
    verdicts: Counter[str] = Counter()
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(dir=MEMORY) as scratch:
        while time.monotonic() < until:
            data = mutate(chance.choice(pool), chance)
            folder = Path(tempfile.mkdtemp(dir=scratch))
            try:
                verdict = judge_and_unpack(data, folder)
            except BaseException:
                (corpus / f"failure-{verdicts.total()}.zip").write_bytes(data)
                raise
            folder.rmdir()
            if not verdicts[verdict] or (verdict == "taken" and chance.random() < 0.01):
                pool.append(data)
            verdicts[verdict] += 1
    print(f"{verdicts.total():,} executions, none broke a promise")
    for verdict, count in verdicts.most_common():
        print(f"  {verdict:22}{count:>10,}")


if __name__ == "__main__":
    main()
