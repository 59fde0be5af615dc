"""`aigw`, `python -m aigw`: the way in. `--version` is answered here, before anything heavy is imported."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run one command line; returns the exit code: 0 done, 1 failed, 2 wrong usage."""
    try:
        code = _run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains while it leaves
        return 1
    return code


def _run(arguments: list[str]) -> int:
    if arguments[:1] in (["--version"], ["-V"]):
        from aigw import __version__

        sys.stdout.write(f"aigw {__version__}\n")
        return 0
    if arguments[:1] == ["--worker"] and len(arguments) == 2 and arguments[1].isdigit():  # started by a supervisor
        from aigw.server.workers import main as work

        return work(int(arguments[1]))
    from aigw.cli.main import main as run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
