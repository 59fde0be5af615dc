"""`aigw verify`: is what runs here what was released, and does it do only what it should?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aigw import __version__
from aigw.cli import output
from aigw.cli.locations import Locations, locations

if TYPE_CHECKING:
    from aigw.integrity.installed import Check
    from aigw.integrity.process import Expected
    from aigw.integrity.sshsig import Signer

IDLE = 5.0
"""Seconds over which the work of a server that nobody asks is measured."""

SETTLE = 2.0
"""Seconds until a second look at what seemed odd."""

YOUNG = 5.0
"""Seconds after its start in which a server has things to do that nobody asked for."""

IDLE_MOST = 0.02
"""Share of a processor that it may take then."""

MOST_SHOWN = 20

SHOWN = {"ok": ("32", "ok"), "flaw": ("31", "flaw"), "unknown": ("33", "unknown"), "note": ("33", "note")}

EXAMPLES = """\b
Examples:
  aigw verify                       every file, signature, owners and modes
  aigw verify --runtime             the running server: children, sockets, code, idle work
  aigw verify --require-signature   an unsigned build is a failure, too
  aigw verify --json | jq .flaws

\b
Without aigw, where that is what you doubt:
  ssh-keygen -Y verify -f allowed_signers -I release@aigw -n aigw-release -s SHA256SUMS.sig < SHA256SUMS
  sha256sum --ignore-missing -c SHA256SUMS
"""

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def verify(
    context: typer.Context,
    runtime: Annotated[bool, typer.Option("--runtime", help="Look at the running server's process instead (Linux).")] = False,
    require_signature: Annotated[
        bool, typer.Option("--require-signature", help="Fail when no trusted signature reaches what is installed.")
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Installed as packages: compare compiled files with their sources, too.")
    ] = False,
    signers: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Whose signature counts (ssh-keygen's allowed_signers), not the project's."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Compare what is installed with what was released: signature, program, every file, who may change them, and whether this
    version was withdrawn.

    Nothing is changed or fetched. Exit code 0 when all is as it should be (an unsigned build of your own, too), 1 when
    something is not, 2 when it cannot be told. A program that was made to lie can lie about itself: see the examples.
    """
    where = locations(context)
    known = _signers(signers)
    began = time.perf_counter()
    if runtime:
        checks = _running(where)
        title = f"aigw {__version__}, the running server"
    else:
        from aigw.integrity import installed

        here = installed.find()
        title = f"aigw {__version__}, {here}"
        checks = [*installed.check(here, where.data_path(), known, deep=deep), _access(where, here)]
    took = time.perf_counter() - began
    code = _code(checks, signed=require_signature and not runtime)
    if as_json:
        output.json(
            {
                "ok": code == 0,
                "version": __version__,
                "seconds": round(took, 3),
                "checks": [{"name": one.name, "state": one.state, "text": one.text} for one in checks],
                "flaws": [flaw._asdict() for one in checks for flaw in one.flaws],
            }
        )
    else:
        output.data(output.safe(title))
        for one in checks:
            _show(one)
        _conclude(checks, code, took, signed=require_signature and not runtime)
    raise typer.Exit(code)


def _signers(file: Path | None) -> tuple[Signer, ...]:
    from aigw.integrity import release

    try:
        return release.signers(file)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{file}: {error}", param_hint="--signers") from None


def _code(checks: Iterable[Check], *, signed: bool) -> int:
    checks = list(checks)
    states = {one.state for one in checks}
    if "flaw" in states or (signed and not any(one.name == "signature" and one.state == "ok" for one in checks)):
        return 1
    return 2 if "unknown" in states else 0


# ---- who may change and read what


def _access(where: Locations, here: Any) -> Check:
    from aigw.integrity import installed
    from aigw.integrity.installed import Check, State

    config, data = where.config_path(), where.data_path()
    open_ones = [
        data / "releases",
        data / "plugins.trusted",
        here.root,
        config,
        config.parent,
        config.parent / "plugins",
        *(config.parent / "plugins").glob("*.py"),
    ]
    if here.program is not None:
        open_ones += [here.program, here.program.parent, here.root.parent]
    private = [data, data / "aigw.db", data / "operator.key", data / "journal"]
    private += (config.parent / "keys").glob("*")
    private += _secret_files(where)
    flaws = installed.reach(open_ones, private)
    if flaws:
        return Check("access", State.FLAW, f"others may change or read {len(flaws)} of what is ours", tuple(flaws))
    return Check("access", State.OK, "only you may change program, plugins and config, and read database and keys")


def _secret_files(where: Locations) -> list[Path]:
    """Files that hold secrets because the config says so; the config itself when they stand in it."""
    from aigw.config import load
    from aigw.config.check import references
    from aigw.errors import ConfigError

    try:
        loaded = load.load_with_notes(where.config_path())
    except (ConfigError, OSError):
        return []  # `aigw doctor` says what is wrong with it
    said = (reference for _, reference in references(loaded.config))
    found = [Path(reference[5:]).expanduser() for reference in said if reference.startswith("file:")]
    return [*found, loaded.path] if load.holds_secrets(loaded.config) else found


# ---- the running server


def _running(where: Locations) -> list[Check]:
    from aigw.cli import control
    from aigw.integrity import process
    from aigw.integrity.installed import Check, State

    if not process.available():
        return [Check("runtime", State.UNKNOWN, "this system does not tell what a process has; it works on Linux")]
    try:
        state = control.ask(where.data_path())
    except OSError as error:
        return [Check("runtime", State.UNKNOWN, f"the server cannot be asked: {error.strerror or error}")]
    if state is None:
        return [Check("runtime", State.UNKNOWN, f"aigw is not running for {where.data_path()}; start it: aigw serve")]
    told = state.get("integrity", {})
    workers = [int(one["pid"]) for one in state.get("workers", []) if one.get("pid")]
    main = int(state["pid"])
    ports = {int(place.rpartition(":")[2]) for places in state["bound"].values() for place in places}
    peers = {*told.get("peers", ()), *process.addresses(told.get("hosts", ()))}

    def peers_now() -> Iterable[str]:
        now = control.ask(where.data_path()) or {}
        return [str(one) for one in now.get("integrity", {}).get("peers", ())]

    found: list[Check] = [_files(told)]
    try:
        for pid in [main, *(one for one in workers if one != main)]:
            expected = process.Expected(workers if pid == main else (), ports, peers, _roots(pid))
            found.append(_process(pid, expected, peers_now))
        output.waiting(f"watching for {IDLE:g} s what it does while nobody asks ...")
        found.append(_idle(where, [main, *workers], state))
    except OSError as error:
        text = f"the process cannot be looked at: {error.strerror or error}; its own user may, and root"
        found.append(Check("runtime", State.UNKNOWN, text))
    finally:
        output.waiting("")
    return found


def _files(told: dict[str, Any]) -> Check:
    from aigw.integrity.installed import Check, State

    intact = told.get("intact")
    state = State.NOTE if intact is None else State.OK if intact else State.FLAW
    return Check("at its start", state, str(told.get("summary") or "it does not say what it found"))


def _roots(pid: int) -> tuple[str, ...]:
    """Where the code of that process may come from: its own Python, and ours, which shares the packages."""
    from aigw.integrity import process

    try:
        program = (Path("/proc") / str(pid) / "exe").readlink()
    except OSError:
        return process.roots()
    return (*process.roots(), f"{program.parent.parent}/", str(program))


def _process(pid: int, expected: Expected, peers: Callable[[], Iterable[str]]) -> Check:
    from aigw.integrity import process
    from aigw.integrity.installed import Check, State

    odd = process.oddities(pid, expected)
    if odd:  # a connection that was being made is known a moment later, or gone
        time.sleep(SETTLE)
        odd = [one for one in process.oddities(pid, expected._replace(peers={*expected.peers, *peers()})) if one in odd]
    sockets = process.sockets(pid)
    outside = sum(not one.listening and bool(one.remote[1]) and one.local[1] not in expected.ports for one in sockets)
    text = (
        f"{pid}: {len(process.children(pid))} children, {process.threads(pid)} threads, listens at "
        f"{', '.join(sorted({str(one.local[1]) for one in sockets if one.listening})) or 'no port'}, {outside} connections out"
    )
    return Check("process", State.FLAW if odd else State.OK, text, tuple(odd))


def _idle(where: Locations, pids: list[int], before: dict[str, Any]) -> Check:
    from aigw.cli import control
    from aigw.integrity import process
    from aigw.integrity.installed import Check, State
    from aigw.integrity.manifest import Flaw

    pids = list(dict.fromkeys(pids))
    time.sleep(min(YOUNG, max(0.0, before["started_at"] + YOUNG - before["now"])))  # it may still look at its own files
    began, used = time.monotonic(), sum(process.cpu(pid) for pid in pids)
    time.sleep(IDLE)
    share = (sum(process.cpu(pid) for pid in pids) - used) / (time.monotonic() - began)
    after = control.ask(where.data_path()) or {}
    if any(one.get("in_flight", {}).get("exchanges") for one in (before, after)) or before.get("counters") != after.get(
        "counters"
    ):
        text = f"{share:.1%} of a processor, with requests: how much it takes without any cannot be told now"
        return Check("idle work", State.NOTE, text)
    text = f"{share:.1%} of a processor over {IDLE:g} s without a request"
    if share <= IDLE_MOST * len(pids):
        return Check("idle work", State.OK, text)
    busy = ", ".join(f"ps -L -p {pid}" for pid in pids[:2])
    flaw = Flaw("processor", f"is used while nobody asks for anything ({share:.1%}, expected under {IDLE_MOST:.0%})", busy)
    return Check("idle work", State.FLAW, text, (flaw,))


# ---- what is shown


def _show(check: Check) -> None:
    import sys

    colour, word = SHOWN[check.state]
    mark = f"\x1b[{colour}m{word}\x1b[0m" if output.coloured(sys.stdout) else word
    output.data(f"{mark}{' ' * (9 - len(word))}{check.name:<14}{output.safe(check.text)}")
    for line in _flaw_lines(check):
        output.data(" " * 9 + output.safe(line))


def _flaw_lines(check: Check) -> Iterator[str]:
    for flaw in check.flaws[:MOST_SHOWN]:
        yield f"{flaw.path} {flaw.what}" + (f"; {flaw.next}" if flaw.next else "")
    if len(check.flaws) > MOST_SHOWN:
        yield f"... and {len(check.flaws) - MOST_SHOWN} more (--json shows all)"


def _conclude(checks: list[Check], code: int, took: float, *, signed: bool) -> None:
    flaws = sum(len(one.flaws) for one in checks)
    if flaws:
        output.note(
            f"{flaws} flaw{'s' * (flaws > 1)}, found in {took:.2f} s. What was changed by nobody you know: stop the server,"
        )
        output.note("install again, and change every key that it could read. docs/trust.md says what else.")
    elif code == 1 and signed:
        output.note("No trusted signature reaches what is installed, and --require-signature asks for one.")
    elif code == 2:
        output.note(f"Not everything could be checked ({took:.2f} s).")
    else:
        output.note(
            f"All as it should be ({took:.2f} s), as far as a program can tell of itself: 'aigw verify --help' has the rest."
        )
