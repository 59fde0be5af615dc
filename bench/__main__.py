"""The benchmark's command line: `bash bench/run` (see README.md beside this file)."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from types import FrameType

import msgspec

from bench import table
from bench.comparison import Load, compare
from bench.contestants import STARTERS, Starter, start_command
from bench.environment import machine
from bench.processes import BenchError, raise_file_limit


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run", description="What aigw costs, beside bare proxies and its peers.")
    what = parser.add_argument_group("what is measured (default: the comparison)")
    what.add_argument("--peers", action="store_true", help="LiteLLM's proxy as well")
    what.add_argument("--instructions", action="store_true", help="callgrind instructions per request instead")
    what.add_argument("--profile", action="store_true", help="aigw's hottest functions under load instead")
    what.add_argument("--native", action="store_true", help="with --profile: C functions as well")
    what.add_argument("--question", type=int, default=300, metavar="BYTES", help="with --profile: size of a request (300)")
    what.add_argument("--limits", nargs="*", metavar="NAME", help="the further promises instead; all of them, or those named")
    what.add_argument("--attack", nargs="*", metavar="NAME", help="what bad callers do to good ones instead; all, or some")
    what.add_argument("--translation", action="store_true", help="aigw between two dialects, beside its passthrough, instead")
    how = parser.add_argument_group("how")
    how.add_argument("--only", metavar="NAMES", help="contestants, separated by commas: " + ", ".join(STARTERS))
    how.add_argument(
        "--also", nargs=3, action="append", default=[], metavar=("NAME", "KEY", "COMMAND"),
        help="one more gateway: {port} and {upstream} (the mock provider's port) in COMMAND are replaced",
    )  # fmt: skip
    how.add_argument("--rounds", type=int, default=5, help="interleaved rounds (5)")
    how.add_argument("--seconds", type=int, default=4, help="seconds of requests per contestant and round (4)")
    how.add_argument("--chunks", type=int, default=200, help="events of each stream, one every 20 ms (200)")
    how.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds < 1 or options.chunks < 1:
        parser.error("--rounds, --seconds and --chunks are at least 1")
    return options


def choose(options: argparse.Namespace, default: list[str]) -> dict[str, Starter]:
    """Who takes part, in order. `--only ""` with `--also` leaves the stranger alone."""
    names = default if options.only is None else [name for name in options.only.split(",") if name]
    unknown = set(names) - set(STARTERS)
    if unknown:
        raise BenchError(f"unknown contestants {', '.join(sorted(unknown))}; there are {', '.join(STARTERS)}")
    starters = {name: STARTERS[name] for name in names}
    return starters | {name: start_command(name, key, command) for name, key, command in options.also}


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    raise_file_limit()
    conditions = machine()
    print("  ".join(f"{name} {value}" for name, value in conditions.items()))
    figures: object
    if options.instructions:
        from bench.instructions import count_instructions, show_instructions

        counted = count_instructions(choose(options, ["aigw"]))
        show_instructions(counted)
        figures = counted
    elif options.profile:
        from bench.hot_functions import find_hot_functions, show_hot_functions

        hot = [
            find_hot_functions(name, one, native=options.native, question=options.question)
            for name, one in choose(options, ["aigw"]).items()
        ]
        show_hot_functions(hot)
        figures = hot
    elif options.translation:
        from bench.translation import measure_translation, show_translation

        measured = measure_translation(Load(rounds=options.rounds, seconds=options.seconds, chunks=options.chunks))
        show_translation(measured)
        figures = measured
    elif options.attack is not None:
        from bench.attack import attack, show_attack

        felt, spent = attack(options.attack)
        show_attack(felt, spent)
        figures = {"attacks": felt, "amplification": spent}
    elif options.limits is not None:
        from bench.limits import check_limits, show_limits

        found = check_limits(options.limits)
        show_limits(found)
        figures = found
    else:
        starters = choose(options, ["nginx", "envoy", "aigw", *(["litellm"] if options.peers else [])])
        comparison = compare(starters, Load(rounds=options.rounds, seconds=options.seconds, chunks=options.chunks))
        table.show_comparison(comparison)
        figures = comparison
    if options.json:
        options.json.write_text(json.dumps({"machine": conditions, "figures": msgspec.to_builtins(figures)}, indent=1) + "\n")
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    print(f"bench: stopped by {signal.Signals(number).name}", file=sys.stderr)
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)  # so that children are stopped and folders removed, as with Ctrl-C
    signal.signal(signal.SIGHUP, _stop)
    try:
        sys.exit(main(sys.argv[1:]))
    except BenchError as error:
        print("bench: " + "\n".join([str(error), *getattr(error, "__notes__", [])]), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
