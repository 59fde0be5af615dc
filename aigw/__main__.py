"""`aigw`, `python -m aigw`: the way in. `--version` is answered here, before anything heavy is imported."""

from __future__ import annotations

import sys


def main() -> int:
    """Run one command line; returns the exit code: 0 done, 1 failed, 2 wrong usage."""
    if sys.argv[1:2] in (["--version"], ["-V"]):
        from aigw import __version__

        try:
            sys.stdout.write(f"aigw {__version__}\n")
            sys.stdout.flush()
        except BrokenPipeError:
            return 1
        return 0
    from aigw.cli.main import main as run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
