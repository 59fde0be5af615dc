"""`aigw service`: run by systemd, from boot or login on, with as few rights as serving needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from aigw.cli import output
from aigw.cli.commands import Noun
from aigw.cli.locations import locations
from aigw.cli.output import Column

app = typer.Typer(
    cls=Noun,
    rich_markup_mode=None,
    help="Run by systemd: install, uninstall, show the unit. Without a command: what is installed.",
    epilog="""\b
Examples:
  aigw service install               for you, from your login on
  aigw service install --socket      systemd listens: nobody is refused while it restarts
  aigw service show --system         the unit for a whole machine
""",
)

SYSTEM_FOLDER = Path("/etc/systemd/system")
SYSTEM_CONFIG = "/etc/aigw/config.toml"
SYSTEM_PROGRAM = "/usr/local/bin/aigw"
USER = "aigw"
"""Who a system-wide service runs as."""

STOP_MORE = 15
"""Seconds that systemd waits beyond `drain_timeout` before it kills."""

# What seccomp and prctl do works in every manager; what needs a mount namespace only where the manager is root's.
_EVERYWHERE = """\
NoNewPrivileges=yes
UMask=0077
LimitCORE=0
LimitNOFILE=65536
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
"""

_SYSTEM = """\
CapabilityBoundingSet=
AmbientCapabilities=
DevicePolicy=closed
PrivateDevices=yes
PrivateTmp=yes
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
"""

System = Annotated[bool, typer.Option("--system", help=f"For the whole machine, as the user {USER}; else for you.")]
Socket = Annotated[bool, typer.Option("--socket", help="systemd listens at the port: nobody is refused while it restarts.")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def quoted(text: str) -> str:
    """A word of a unit's command line, whatever is in it (systemd.service(5), COMMAND LINES)."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if any(one in text for one in " \t'\"\\;") else text


def program() -> str:
    """The absolute path of the program that somebody who types `aigw` starts."""
    if launcher := os.environ.get("AIGW_LAUNCHER"):
        return launcher
    return shutil.which("aigw") or str(Path(sys.argv[0]).absolute())


def service_unit(*, system: bool, command: list[str], drain: float, socket: bool) -> str:
    """The text of aigw.service. *command* is what is started; *drain* are the seconds that a stop may take."""
    lines = [
        "# Written by `aigw service install`; settings of your own belong into `systemctl edit aigw`.",
        "[Unit]",
        "Description=aigw, an AI gateway",
        "Documentation=https://github.com/aigw/aigw/blob/main/docs/operations.md",
        *(["Wants=network-online.target", "After=network-online.target"] if system else []),
        *(["Requires=aigw.socket", "After=aigw.socket"] if socket else []),
        "",
        "[Service]",
        "Type=exec",
        f"ExecStart={' '.join(quoted(word) for word in command)}",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "Restart=on-failure",
        "RestartSec=2",
        "RestartPreventExitStatus=2",
        "KillMode=mixed",
        f"TimeoutStopSec={int(drain) + STOP_MORE}",
    ]
    if system:
        lines += [
            f"User={USER}",
            f"Group={USER}",
            "StateDirectory=aigw",
            "StateDirectoryMode=0700",
            f"Environment=AIGW_CONFIG={SYSTEM_CONFIG} AIGW_DATA_DIR=/var/lib/aigw AIGW_RUNTIME_DIR=/var/lib/aigw/rt",
            "EnvironmentFile=-/etc/aigw/environment",
        ]
    else:
        lines += ["EnvironmentFile=-%E/aigw/environment"]
    lines += [*_EVERYWHERE.splitlines(), *(_SYSTEM.splitlines() if system else [])]
    lines += ["", "[Install]", f"WantedBy={'multi-user.target' if system else 'default.target'}"]
    return "\n".join(lines) + "\n"


def socket_unit(host: str, port: int) -> str:
    """The text of aigw.socket."""
    both = [f"ListenStream=[::1]:{port}"] if host in ("127.0.0.1", "localhost") else []
    address = {"localhost": "127.0.0.1"}.get(host, host)
    lines = [
        "# Written by `aigw service install --socket`.",
        "[Unit]",
        "Description=where aigw listens",
        "",
        "[Socket]",
        f"ListenStream={f'[{address}]' if ':' in address.strip('[]') and not address.startswith('[') else address}:{port}",
        *both,
        "BindIPv6Only=ipv6-only",
        "Backlog=256",
        "NoDelay=yes",
        "",
        "[Install]",
        "WantedBy=sockets.target",
    ]
    return "\n".join(lines) + "\n"


def _folder(system: bool) -> Path:
    if system:
        return SYSTEM_FOLDER
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd/user"


def _units(context: typer.Context, *, system: bool, socket: bool) -> dict[str, str]:
    """File name -> text."""
    places = locations(context)
    if system:
        command = [SYSTEM_PROGRAM, "serve"]
        from aigw.config.schema import Config

        config = Config()
        if Path(SYSTEM_CONFIG).exists() and os.access(SYSTEM_CONFIG, os.R_OK):
            from aigw.config import load

            config = load.load(Path(SYSTEM_CONFIG))
    else:
        config = places.load_config()
        command = [
            program(),
            "serve",
            "--config",
            str(places.config_path().absolute()),
            "--data-dir",
            str(places.data_path().absolute()),
        ]
    units = {"aigw.service": service_unit(system=system, command=command, drain=config.server.drain_timeout, socket=socket)}
    if socket:
        units["aigw.socket"] = socket_unit(config.server.host, config.server.port or 8080)
    return units


def _systemctl(system: bool, *words: str) -> bool:
    """Run systemctl; whether it went well. What it says goes to our stderr."""
    if not shutil.which("systemctl"):
        return False
    command = ["systemctl", *([] if system else ["--user"]), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    for line in (done.stdout + done.stderr).splitlines():
        output.note(f"  {line}")
    return done.returncode == 0


@app.command("list", epilog="\b\nExamples:\n  aigw service\n  aigw service --json\n")
def list_services(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
) -> None:
    """The units that are installed, and where."""
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    rows = [
        ("machine" if system else "user", name, str(_folder(system) / name))
        for system in (True, False)
        for name in ("aigw.service", "aigw.socket")
        if (_folder(system) / name).exists()
    ]
    names = ("for", "unit", "file")
    if as_json:
        output.json([dict(zip(names, row, strict=True)) for row in rows])
    elif as_csv:
        output.csv(names, rows)
    elif rows:
        output.table([Column(name) for name in names], rows)
    else:
        output.note("No service is installed: aigw service install, or aigw service install --system as root.")


@app.command(epilog="\b\nExamples:\n  aigw service show\n  aigw service show --system --socket\n")
def show(context: typer.Context, system: System = False, socket: Socket = False) -> None:
    """What `install` would write; nothing is changed."""
    units = _units(context, system=system, socket=socket)
    for name, text in units.items():
        if len(units) > 1:
            output.data(f"# {_folder(system) / name}")
        output.data(output.readable(text.rstrip("\n")))


@app.command(epilog="\b\nExamples:\n  aigw service install\n  aigw service install --socket\n  aigw service install --system\n")
def install(
    context: typer.Context,
    system: System = False,
    socket: Socket = False,
    start: Annotated[bool, typer.Option("--start/--no-start", help="Start it, now and from now on.")] = True,
    dry_run: Dry = False,
    yes: Yes = False,
) -> None:
    """Write the unit and let systemd start it. A unit that was changed by hand is replaced only after a question."""
    if sys.platform != "linux":
        output.fail("systemd is Linux's: here, `aigw serve` in whatever starts programs at login will do")
        raise typer.Exit(1)
    units = _units(context, system=system, socket=socket)
    folder = _folder(system)
    if dry_run:
        for name, text in units.items():
            output.note(f"would write {folder / name}{'' if _differs(folder / name, text) else ' (as it is)'}")
        output.note(f"would run systemctl{'' if system else ' --user'} daemon-reload{' and enable --now' if start else ''}")
        return
    if system:
        _need_user()
    changed = [name for name, text in units.items() if (folder / name).exists() and _differs(folder / name, text)]
    if changed and not yes:
        question = f"{', '.join(changed)} in {folder} will be replaced; go on?"
        if not output.interactive():
            output.fail(
                f"{', '.join(changed)} in {folder} is another one: --yes replaces it, `aigw service show` shows the new one"
            )
            raise typer.Exit(1)
        if not output.confirm(question):
            raise typer.Exit(1)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in units.items():
        fresh = folder / f".{name}.new"
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(0o644)
        fresh.replace(folder / name)
        output.note(f"wrote {folder / name}")
    word = "systemctl" if system else "systemctl --user"
    wanted = "aigw.socket" if socket else "aigw.service"
    if not _systemctl(system, "daemon-reload"):
        output.warn(f"systemd does not answer here. When it does: {word} daemon-reload && {word} enable --now {wanted}")
        return
    if not start:
        output.note(f"start it, now and from now on: {word} enable --now {wanted}")
        return
    if not _systemctl(system, "enable", "--now", wanted):
        output.fail(f"it was installed, but does not start; why: {'journalctl' if system else 'journalctl --user'} -u aigw")
        raise typer.Exit(1)
    output.note(f"{wanted} runs; its log: {'journalctl' if system else 'journalctl --user'} -fu aigw")
    if not system:
        output.note("to let it run while you are not logged in: loginctl enable-linger")


@app.command(epilog="\b\nExamples:\n  aigw service uninstall\n  aigw service uninstall --system --dry-run\n")
def uninstall(system: System = False, dry_run: Dry = False, yes: Yes = False) -> None:
    """Stop it and take the units away. Config, keys and records stay."""
    there = [_folder(system) / name for name in ("aigw.socket", "aigw.service") if (_folder(system) / name).exists()]
    if not there:
        output.note(f"there is none in {_folder(system)}")
        return
    if dry_run:
        for path in there:
            output.note(f"would stop and remove {path}")
        return
    if not yes and output.interactive() and not output.confirm(f"stop and remove {', '.join(path.name for path in there)}?"):
        raise typer.Exit(1)
    _systemctl(system, "disable", "--now", *(path.name for path in there))
    for path in there:
        path.unlink()
        output.note(f"removed {path}")
    _systemctl(system, "daemon-reload")


def _differs(path: Path, text: str) -> bool:
    try:
        return path.read_text("utf-8") != text
    except (OSError, UnicodeDecodeError):
        return True


def _need_user() -> None:
    """Raises typer.Exit when the service's user is not there, or we may not write."""
    import pwd

    if os.geteuid() != 0:
        output.fail("a service for the whole machine is root's: run it as root, or without --system for you alone")
        raise typer.Exit(1)
    try:
        pwd.getpwnam(USER)
    except KeyError:
        output.fail(
            f"there is no user {USER}, whom it is to run as. Make it and the config's folder, then again:\n"
            f"  useradd --system --home-dir /var/lib/aigw --shell /usr/sbin/nologin {USER}\n"
            f"  install -d -o {USER} -g {USER} -m 0700 /etc/aigw"
        )
        raise typer.Exit(1) from None
    if not os.access(SYSTEM_PROGRAM, os.X_OK):
        output.warn(f"{SYSTEM_PROGRAM} is not there: put the program there, where that user may read it")
