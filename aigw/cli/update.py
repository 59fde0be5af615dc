"""`aigw update`: a newer release in the place of this single file, and the way back."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from aigw import __version__
from aigw.cli import output
from aigw.cli.locations import Locations, locations

if TYPE_CHECKING:
    from aigw.integrity.installed import Installation
    from aigw.integrity.mirror import Channel
    from aigw.integrity.sshsig import Signer

KEPT = 2
"""Programs of older versions that are kept for a rollback."""

EXAMPLES = """\b
Examples:
  aigw update                       to the newest release
  aigw update --check               only say whether there is one, or this one was withdrawn
  aigw update --dry-run             what it would do, and which migrations come with it
  aigw update --from /mnt/releases  from a folder, without a network
  aigw update --rollback            back to the version before
"""

app = typer.Typer(rich_markup_mode=None)


class Wanted:
    """What one command line asks for."""

    def __init__(self, where: Locations, here: Installation, known: tuple[Signer, ...], *, dry_run: bool) -> None:
        self.where, self.here, self.known, self.dry_run = where, here, known, dry_run
        self.data_dir = where.data_path()


@app.command(epilog=EXAMPLES)
def update(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Only look. Exit code 0: nothing to do; 1: withdrawn, or a newer one.")
    ] = False,
    version: Annotated[str, typer.Option(metavar="X.Y.Z", help="This version, not the newest; not an older one.")] = "",
    rollback: Annotated[bool, typer.Option("--rollback", help="Put the version before in place again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all of it, and change nothing.")] = False,
    source: Annotated[
        str,
        typer.Option("--from", metavar="URL|DIR", help="Where releases lie.  [default: $AIGW_DOWNLOAD_BASE, or the project's]"),
    ] = "",
    signers: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Whose signature counts (ssh-keygen's allowed_signers), not the project's."),
    ] = None,
) -> None:
    """Replace this program by the newest release, once its signatures were checked.

    An older or withdrawn version is refused, and so is a list of versions that is out of date. What is replaced is kept for
    --rollback. The database is copied before a new version changes it. A running server goes on with the old one until it is
    started again.
    """
    from aigw.integrity import installed, release

    where = locations(context)
    here = installed.find()
    try:
        known = release.signers(signers)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{signers}: {error}", param_hint="--signers") from None
    wanted = Wanted(where, here, known, dry_run=dry_run)
    if sum((check, rollback, bool(version))) > 1:
        raise typer.BadParameter("--check, --version and --rollback exclude each other")
    if rollback:
        _rollback(wanted)
        return
    if version:
        try:
            release.number(version)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--version") from None
    found = _channel(source, known)
    withdrawn = _withdrawn(wanted, found)
    if check:
        _say_whether(found, withdrawn)
    _update(wanted, found, version or found.latest.version)


# ---- looking


def _channel(source: str, known: Sequence[Signer]) -> Channel:
    """What the first place that answers with good signatures says."""
    from aigw.integrity import mirror, release

    if not release.names(known, release.RELEASE):
        raise _failed(
            "nobody is trusted to sign releases: no key of the project's is in this aigw",
            "Releases of your own: aigw update --signers FILE --from URL|DIR",
        )
    try:
        with output.working("asking for the newest version"):
            return mirror.quickest(mirror.bases(source), known, time.time())
    except mirror.NowhereError as error:
        problems = error.problems
    except mirror.MirrorError as error:
        raise typer.BadParameter(str(error), param_hint="--from") from None
    for problem in problems[:-1]:
        output.note(output.safe(problem))
    raise _failed(output.safe(problems[-1]), "Another place: aigw update --from URL|DIR")


def _withdrawn(wanted: Wanted, found: Channel) -> str:
    """Why this version was withdrawn, "" if it was not; the newest list that was seen stays here."""
    from aigw.integrity import kept, release

    old = kept.revoked(wanted.data_dir, wanted.known, time.time())
    newest = found.revoked
    if newest is not None and (old is None or newest.date >= old.date):
        names = [name for name in found.files if name.startswith(release.REVOKED)]
        with contextlib.suppress(OSError):
            kept.keep(kept.folder(wanted.data_dir), {name: found.files[name] for name in names})
    lists = [one for one in (newest, old) if one is not None]
    return next((reason for one in lists if (reason := one.reason(__version__))), "")


def _say_whether(found: Channel, withdrawn: str) -> NoReturn:
    from aigw.integrity import release

    newer = release.number(found.latest.version) > release.number(__version__)
    if withdrawn:
        output.fail(f"aigw {__version__}, which this is, was withdrawn: {output.safe(withdrawn)}")
        output.note(
            "Change every key that it could read. Then: aigw update" if newer else "Change every key that it could read."
        )
    elif newer:
        output.data(f"aigw {found.latest.version} is there (this is {__version__}); next: aigw update")
    else:
        output.data(f"aigw {__version__} is the newest version.")
    raise typer.Exit(1 if newer or withdrawn else 0)


# ---- going to another version


def _update(wanted: Wanted, found: Channel, version: str) -> None:
    from aigw.integrity import kept, mirror, release
    from aigw.integrity.mirror import MirrorError

    new, own = release.number(version), release.number(__version__)
    if new == own:
        output.note(
            f"aigw {__version__} is the newest version." if version == found.latest.version else f"This is aigw {version}."
        )
        return
    if new < own:
        raise _failed(
            f"{version} is older than this one ({__version__}): refused", "The version before: aigw update --rollback"
        )
    if release.number(found.latest.min_version) > own:
        minimum = found.latest.min_version
        raise _failed(f"{version} cannot take over from {__version__}", f"First: aigw update --version {minimum}")
    if found.revoked is not None and (reason := found.revoked.reason(version)):
        raise _failed(f"aigw {version} was withdrawn: {output.safe(reason)}", "Nothing was changed.")
    program = _program(wanted)
    name = mirror.program_name(version)
    try:
        sums, files, signed = mirror.sums(found.base, version, wanted.known, time.time())
        digest = _digest(found, sums, version, name)
        with _locked(wanted):
            _describe(wanted, found.base, version, sums, [one.name for one in signed])
            if wanted.dry_run:
                output.note("Nothing was changed.")
                return
            fresh = _fetched(found.base, version, name, digest, program)
            try:
                _try(fresh, version)
                _keep_program(wanted, program)
                kept.keep(kept.folder(wanted.data_dir) / version, files)
                fresh.replace(program)
            finally:
                fresh.unlink(missing_ok=True)
            _forget_older(wanted, version)
    except MirrorError as error:
        raise _failed(output.safe(str(error)), "Nothing was changed.") from None
    output.note(f"aigw {version} is {program} (sha256 {digest})")
    _told_server(wanted, version)


def _digest(found: Channel, sums: dict[str, str], version: str, name: str) -> str:
    from aigw.integrity.mirror import MirrorError

    if name not in sums:
        raise MirrorError(f"aigw {version} was not made for this system ({name.removeprefix(f'aigw-{version}-')})")
    told = found.latest.sha256.get(name) if version == found.latest.version else None
    if told is not None and told != sums[name]:
        raise MirrorError(f"{name}: the two signed lists name different hashes; one of them was replaced")
    if found.revoked is not None and (reason := found.revoked.reason("", sums[name])):
        raise MirrorError(f"{name} was withdrawn: {reason}")
    return sums[name]


def _program(wanted: Wanted) -> Path:
    """The file to replace. Exits where aigw is not a single file: then something else brings new versions."""
    from aigw.integrity.installed import Kind

    here = wanted.here
    if here.kind is Kind.FILE and here.program is not None:
        program = here.program.resolve()
        if not os.access(program.parent, os.W_OK):
            raise _failed(f"{program.parent} cannot be written to by this user", "As its owner, run: aigw update")
        return program
    ways = {
        Kind.CHECKOUT: "in the checkout: git pull, then bash install.sh",
        Kind.TREE: "take the image, or the archive, of the new version",
    }
    environment = "/env/" in f"{sys.prefix}/"
    packages = "in its checkout: git pull && bash install.sh" if environment else "uv tool upgrade aigw, or pip install -U aigw"
    raise _failed(
        f"this aigw is no single file ({here.kind}), so it is not updated here", f"Instead: {ways.get(here.kind, packages)}"
    )


def _describe(wanted: Wanted, base: str, version: str, sums: dict[str, str], signed: Sequence[str]) -> None:
    from aigw.integrity import mirror

    output.note(f"aigw {__version__} -> {version}, signed by {', '.join(map(output.safe, signed))}, from {output.safe(base)}")
    named = f"{mirror.program_name(version)}.manifest.json"
    if named not in sums:
        return
    steps = _migrations(base, version, named, sums[named])
    if steps:
        output.note(f"The database is changed at the next start, and copied before: {', '.join(steps)}")
    elif wanted.dry_run:
        output.note("The database stays as it is: no migrations.")


def _migrations(base: str, version: str, name: str, digest: str) -> list[str]:
    """Steps of the schema that the new version has and this one has not, by the names of their files."""
    import hashlib

    from aigw.integrity import manifest, mirror
    from aigw.storage import migrations

    content = mirror.small(base, f"{version}/{name}", manifest.LARGEST)
    if hashlib.sha256(content).hexdigest() != digest:
        raise mirror.MirrorError(f"{base}/{version}/{name} is not what was signed")
    try:
        files = manifest.read(content).files
    except ValueError as error:
        raise mirror.MirrorError(f"{base}/{version}/{name}: {error}") from None
    own = {path.name for path in Path(migrations.__file__).parent.glob("[mp][0-9]*.py")}
    found = (re.search(r"aigw/storage/migrations/([mp]\d+_\w+\.py)$", path) for path in files)
    return sorted({one[1].removesuffix(".py") for one in found if one is not None and one[1] not in own})


def _fetched(base: str, version: str, name: str, digest: str, program: Path) -> Path:
    """The new program beside the old one, not yet in its place."""
    from aigw.integrity import mirror

    folder = Path(tempfile.mkdtemp(prefix=".aigw.", dir=program.parent))
    try:
        with output.progress(f"fetching {name}", None) as told:
            mirror.download(base, f"{version}/{name}", folder / "aigw", digest, told)
        (folder / "aigw").chmod(0o755)
        fresh = program.with_name(f"{folder.name}.new")
        (folder / "aigw").rename(fresh)
        return fresh
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _try(program: Path, version: str) -> None:
    """It has to start here before it takes over; which also unpacks it."""
    from aigw.integrity.mirror import MirrorError

    environment = {name: value for name, value in os.environ.items() if name not in ("AIGW_LAUNCHER", "AIGW_RUNTIME")}
    try:
        ran = subprocess.run(  # noqa: S603 - what was signed
            [str(program), "--version"], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MirrorError(f"the new program does not start: {error}") from None
    if ran.stdout.strip() != f"aigw {version}":
        said = output.safe((ran.stderr or ran.stdout).strip().splitlines()[-1] if (ran.stderr or ran.stdout).strip() else "")
        raise MirrorError(f"the new program does not start here ({said or f'exit code {ran.returncode}'})")


# ---- what is kept, and the way back


def _keep_program(wanted: Wanted, program: Path) -> None:
    """This version's program, for a rollback."""
    from aigw.integrity import kept

    place = kept.folder(wanted.data_dir) / __version__
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = place / f".{kept.PROGRAM}.{os.getpid()}"
    fresh.unlink(missing_ok=True)
    try:
        os.link(program, fresh)  # the same file under another name; the first one is replaced, not written to
    except OSError:
        shutil.copy2(program, fresh)
    fresh.replace(place / kept.PROGRAM)


def _forget_older(wanted: Wanted, version: str) -> None:
    from aigw.integrity import kept

    for old in [one for one in kept.versions(wanted.data_dir) if one != version][KEPT:]:
        shutil.rmtree(kept.folder(wanted.data_dir) / old, ignore_errors=True)


def _rollback(wanted: Wanted) -> None:
    from aigw.integrity import kept, release, single_file
    from aigw.integrity.mirror import MirrorError

    program = _program(wanted)
    own = release.number(__version__)
    older = [one for one in kept.versions(wanted.data_dir) if release.number(one) < own]
    if not older:
        raise _failed(f"no version before {__version__} is kept in {kept.folder(wanted.data_dir)}", "Nothing was changed.")
    version = older[0]
    saved = kept.folder(wanted.data_dir) / version / kept.PROGRAM
    revoked = kept.revoked(wanted.data_dir, wanted.known, time.time())
    if revoked is not None and (reason := revoked.reason(version)):
        raise _failed(f"aigw {version} was withdrawn: {output.safe(reason)}", "Nothing was changed.")
    try:
        _signed_still(wanted, version, single_file.read(saved).sha256)
        if wanted.dry_run:
            output.note(f"aigw {version} would be put in the place of {__version__}: {program}")
            return
        with _locked(wanted):
            fresh = program.with_name(f".aigw.{os.getpid()}.new")
            shutil.copy2(saved, fresh)
            try:
                fresh.chmod(0o755)
                _try(fresh, version)
                _keep_program(wanted, program)
                fresh.replace(program)
            finally:
                fresh.unlink(missing_ok=True)
    except (MirrorError, ValueError) as error:
        raise _failed(output.safe(str(error)), "Nothing was changed.") from None
    output.note(f"aigw {version} is {program} again")
    _backups(wanted)
    _told_server(wanted, version)


def _signed_still(wanted: Wanted, version: str, digest: str) -> None:
    """A program that came with a signed list has to be in it, now too."""
    from aigw.integrity import kept, release
    from aigw.integrity.mirror import MirrorError
    from aigw.integrity.sshsig import SignatureError

    found = kept.signed(kept.folder(wanted.data_dir) / version, release.SUMS)
    if found is None:
        output.warn(f"aigw {version} came without signatures; none could be checked")
        return
    try:
        release.check(found[0], found[1], wanted.known, release.RELEASE, time.time())
    except SignatureError as error:
        raise MirrorError(f"what is kept of {version} is not believed: {error}") from None
    if digest not in release.sums(found[0]).values():
        raise MirrorError(f"what is kept of {version} is not what was signed")


def _backups(wanted: Wanted) -> None:
    """A newer version may have changed the database; what it copied before is named."""
    backups = sorted(wanted.data_dir.glob("aigw.db.v*.backup"))
    if backups:
        output.note(f"If it cannot read the database: the copy from before the last change is {backups[-1]}")


@contextlib.contextmanager
def _locked(wanted: Wanted) -> Iterator[None]:
    """One update at a time."""
    from aigw.integrity import kept

    folder = kept.folder(wanted.data_dir)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _failed("another update is under way", "Wait for it, then look: aigw --version") from None
        yield
    finally:
        os.close(handle)


def _told_server(wanted: Wanted, version: str) -> None:
    """What a running server has to do with it."""
    from aigw.cli import control

    state = None
    with contextlib.suppress(OSError):
        state = control.ask(wanted.data_dir)
    if state is None:
        return
    output.note(
        f"The running server (process {state['pid']}) is still aigw {state['version']}: start it again to have {version}."
    )
    if Path("/run/systemd/system").is_dir():
        output.note("Where systemd runs it: systemctl --user restart aigw (or: sudo systemctl restart aigw)")


def _failed(why: str, then: str = "") -> typer.Exit:
    """Says it; the caller raises what is returned."""
    output.fail(why)
    if then:
        output.note(then)
    return typer.Exit(1)
