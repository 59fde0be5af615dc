"""The long form: `python -m tests.fuzz TARGET [--seconds 600] [--found FOLDER] [--input FILE]`.

With atheris it is guided by coverage, without it inputs are made from the corpus by chance. atheris is no dependency of the
project; a folder of its own is enough:

    python -m pip install --target .atheris --require-hashes --only-binary :all: -r tests/fuzz/atheris.lock
    PYTHONPATH=.atheris python -m tests.fuzz framing
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
NAMES = sorted(path.name for path in (HERE / "corpus").iterdir())
ONE_INPUT = 5
"""Seconds one input may take; the longest has 4 KB."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Feeds one target with odd inputs for a while.")
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    parser.add_argument("--found", type=Path, default=None, metavar="FOLDER", help="where new inputs are kept")
    parser.add_argument("--input", type=Path, default=None, metavar="FILE", help="try this one input only")
    options = parser.parse_args(arguments)
    if options.input is not None:
        importlib.import_module(f"tests.fuzz.test_{options.target}")
        from tests.fuzz.inputs import TARGETS

        TARGETS[options.target].check(options.input.read_bytes())
        return 0
    found: Path = options.found or Path(tempfile.mkdtemp(prefix=f"fuzz-{options.target}-"))
    found.mkdir(parents=True, exist_ok=True)
    try:
        import atheris
    except ImportError:
        print("atheris is not installed (how: the head of this file): by chance, unguided", file=sys.stderr)
        return by_chance(options.target, options.seconds, options.seed or random.randrange(2**32), found)
    guided(atheris, options.target, options.seconds, options.seed, found)
    return 0


def guided(atheris: ModuleType, name: str, seconds: int, seed: int, found: Path) -> None:
    """Does not return: libFuzzer ends the process, with 0 when nothing was found."""
    with atheris.instrument_imports(include=["aigw"]):
        importlib.import_module(f"tests.fuzz.test_{name}")
    from tests.fuzz.inputs import CORPUS, LONGEST, TARGETS

    target = TARGETS[name]
    words = found.parent / f"{found.name}.words"
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.words if word))
    flags = [f"-max_total_time={seconds}", f"-timeout={ONE_INPUT}", f"-max_len={LONGEST}", f"-dict={words}", f"-seed={seed}"]
    flags += ["-print_final_stats=1", "-rss_limit_mb=2048", f"-artifact_prefix={found}/", "-len_control=10"]
    sys.setrecursionlimit(1000)
    atheris.Setup([name, *flags, str(found), str(CORPUS / name)], target.check)
    atheris.Fuzz()


def by_chance(name: str, seconds: int, seed: int, found: Path) -> int:
    importlib.import_module(f"tests.fuzz.test_{name}")
    from tests.fuzz.inputs import TARGETS, bent, corpus

    target, seeds, chance = TARGETS[name], corpus(name), random.Random(seed)
    count, slowest, deadline = 0, 0.0, time.monotonic() + seconds
    while (began := time.monotonic()) < deadline:
        data = bent(chance, seeds, target.words)
        try:
            target.check(data)
        except BaseException:
            (found / f"crash-{seed}-{count}").write_bytes(data)
            print(f"{name}: seed {seed}, input {count}, kept in {found}", file=sys.stderr)
            raise
        count += 1
        slowest = max(slowest, time.monotonic() - began)
    print(f"{name}: {count:,} inputs in {seconds} s, seed {seed}, slowest {slowest * 1000:.1f} ms, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
