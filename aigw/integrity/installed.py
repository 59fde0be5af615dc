"""How this aigw was installed, and whether it is still what was released.

Three things are told apart: a *flaw* (something is not as it should be), what *cannot be checked* here, and a *note*. None of
it proves anything against a program that was made to lie: `docs/trust.md` says how to check without it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from aigw import __version__
from aigw.integrity import kept, manifest, release, single_file
from aigw.integrity.manifest import Flaw
from aigw.integrity.sshsig import SignatureError, Signer


class Kind(StrEnum):
    """In what form aigw lies here."""

    FILE = "single file"
    TREE = "tree"
    PACKAGES = "packages"
    CHECKOUT = "checkout"


class Installation(NamedTuple):
    """`program` is the single file (or None), `root` the folder of the tree, or site-packages."""

    kind: Kind
    program: Path | None
    root: Path

    def __str__(self) -> str:
        return f"{self.kind} {self.program or self.root}"


class State(StrEnum):
    """What a check came to."""

    OK = "ok"
    FLAW = "flaw"
    UNKNOWN = "unknown"
    NOTE = "note"


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    state: State
    text: str
    flaws: tuple[Flaw, ...] = ()


def find(environ: Mapping[str, str] = os.environ, executable: str = sys.executable) -> Installation:
    """Where this process runs from. What the environment says is believed only as far as the interpreter bears it out."""
    python = Path(executable)
    tree = python.parent.parent
    said = environ.get("AIGW_RUNTIME", "")
    if (tree / manifest.NAME).is_file() or (said and Path(said) == tree):
        launcher = environ.get("AIGW_LAUNCHER", "")
        if said and launcher and Path(said) == tree:
            return Installation(Kind.FILE, Path(launcher), tree)
        return Installation(Kind.TREE, None, tree)
    site = Path(__file__).resolve().parents[2]
    if (site / "pyproject.toml").is_file() and not any(site.glob("aigw-*.dist-info")):
        return Installation(Kind.CHECKOUT, None, site)
    return Installation(Kind.PACKAGES, None, site)


def check(here: Installation, data_dir: Path, known: Sequence[Signer], *, deep: bool = False) -> Iterator[Check]:
    """Look at signature, program, every file, and whether this version was withdrawn. *deep*: compile the sources of packages
    to compare them with what is compiled (seconds)."""
    match here.kind:
        case Kind.FILE | Kind.TREE:
            yield from _released(here, data_dir, known)
        case _:
            yield from _packages(here, deep=deep)


def _released(here: Installation, data_dir: Path, known: Sequence[Signer]) -> Iterator[Check]:
    now = time.time()
    sums, signature = _signature(data_dir, known, now)
    content: bytes | None = None
    hashes: list[str] = []
    if here.program is not None:
        program = _program(here.program)
        if isinstance(program, Check):
            yield signature
            yield program
            return
        hashes.append(program.sha256)
        content = program.manifest
        listed = sums is not None and program.sha256 in sums.values()
        if sums is not None and not listed:
            text = f"{here.program} is not in the signed list of {__version__}: it was changed, or built by somebody else"
            yield signature
            yield Check("program", State.FLAW, text, (Flaw(str(here.program), "is not what was signed"),))
        else:
            yield signature
            where = "as signed" if listed else "whole"
            yield Check("program", State.OK, f"{here.program}: {where} (sha256 {program.sha256})")
        if here.root.name != program.folder:
            text = f"{here.root} is not the folder of {here.program}: that file was replaced since this one started"
            yield Check("runtime", State.UNKNOWN, text)
            return
    else:
        try:
            content = (here.root / manifest.NAME).read_bytes()
        except OSError as error:
            yield signature
            yield Check("runtime", State.UNKNOWN, f"its manifest cannot be read: {error.strerror}")
            return
        digest = hashlib.sha256(content).hexdigest()
        hashes.append(digest)
        yield signature
        if sums is not None and digest not in sums.values():
            text = f"{here.root / manifest.NAME} is not in the signed list of {__version__}"
            yield Check("runtime", State.FLAW, text, (Flaw(manifest.NAME, "is not what was signed"),))
    yield _tree(here.root, content)
    yield from withdrawn(data_dir, known, now, __version__, hashes)


def _signature(data_dir: Path, known: Sequence[Signer], now: float) -> tuple[dict[str, str] | None, Check]:
    """The signed hashes of this version, if there are any to be believed."""
    place = kept.folder(data_dir) / __version__
    try:
        found = kept.signed(place, release.SUMS)
    except OSError as error:
        return None, Check("signature", State.UNKNOWN, f"{place / release.SUMS} cannot be read: {error.strerror}")
    if found is None:
        return None, Check("signature", State.NOTE, "unsigned: built here, or installed without a release's list of hashes")
    content, signatures = found
    if not signatures and not release.names(known, release.RELEASE):
        text = "unsigned: its list of hashes has no signature, and this aigw trusts no key yet"
        return None, Check("signature", State.NOTE, text)
    try:
        by = release.check(content, signatures, known, release.RELEASE, now)
        sums = release.sums(content)
    except (SignatureError, ValueError) as error:
        text = f"{place / release.SUMS} is not believed: {error}"
        return None, Check("signature", State.FLAW, text, (Flaw(str(place / release.SUMS), str(error)),))
    text = f"{__version__} was signed by " + ", ".join(f"{one.name} ({one.fingerprint})" for one in by)
    return sums, Check("signature", State.OK, text)


def _program(path: Path) -> single_file.SingleFile | Check:
    try:
        return single_file.read(path)
    except FileNotFoundError:
        return Check("program", State.UNKNOWN, f"{path} has gone: it was removed or replaced since this one started")
    except OSError as error:
        return Check("program", State.UNKNOWN, f"{path} cannot be read: {error.strerror}")
    except ValueError as error:
        return Check("program", State.FLAW, f"{path}: {error}", (Flaw(str(path), str(error), "install it again"),))


def _tree(root: Path, content: bytes) -> Check:
    try:
        wanted = manifest.read(content)
        found = manifest.flaws(root, wanted, trusted())
        same = (root / manifest.NAME).read_bytes() == content
    except (OSError, ValueError) as error:
        return Check("runtime", State.FLAW, f"{root}: {error}", (Flaw(str(root), str(error)),))
    if not same:
        found.append(Flaw(manifest.NAME, "was changed"))
    if found:
        return Check("runtime", State.FLAW, f"{root}: {len(found)} flaws in {len(wanted.files)} files", tuple(found))
    return Check("runtime", State.OK, f"{root}: {len(wanted.files)} files as released, none else")


def withdrawn(data_dir: Path, known: Sequence[Signer], now: float, version: str, hashes: Sequence[str]) -> Iterator[Check]:
    """Whether the list of withdrawn versions that is kept here names this one."""
    revoked = kept.revoked(data_dir, known, now)
    if revoked is None:
        return
    if reason := revoked.reason(version, *hashes):
        text = f"aigw {version} was withdrawn: {reason}; run: aigw update"
        yield Check("withdrawn", State.FLAW, text, (Flaw(f"aigw {version}", f"was withdrawn: {reason}", "aigw update"),))
    else:
        day = time.strftime("%Y-%m-%d", time.gmtime(revoked.date))
        yield Check("withdrawn", State.OK, f"not withdrawn, as of {day}")


def trusted() -> frozenset[int]:
    """Who may own what runs here: root and this user."""
    return frozenset((0, os.getuid()))


# ---- installed as packages


_PYC = re.compile(r"(?P<folder>.*?)__pycache__/(?P<stem>[^/]+)\.[a-z]+-\d+(?:[-.][\w.-]+)?\.pyc")


def _packages(here: Installation, *, deep: bool) -> Iterator[Check]:
    from importlib.metadata import distributions

    sites = [
        path for path in dict.fromkeys(sys.path) if path.endswith(("site-packages", "dist-packages")) and Path(path).is_dir()
    ]
    own = here.kind is Kind.PACKAGES
    if own:
        text = "unsigned: installed as packages, whose index vouches for them; the lists in the packages are what is compared"
        yield Check("signature", State.NOTE, text)
    else:
        yield Check("signature", State.UNKNOWN, f"aigw runs from the checkout {here.root}: only its packages can be checked")
    recorded: dict[str, str] = {}  # path -> SHA-256 as RECORD writes it, "" without one
    versions: dict[str, str] = {}
    flaws: list[Flaw] = []
    for one in distributions(path=sites):
        name, files = one.metadata["Name"], one.files
        versions[_normal(name)] = one.version
        if files is None:
            flaws.append(Flaw(name, "has no list of its files (RECORD)"))
            continue
        for file in files:
            path = os.path.normpath(os.path.join(str(one.locate_file("")), str(file)))  # noqa: PTH118 - thousands of them
            recorded[path] = file.hash.value if file.hash is not None and file.hash.mode == "sha256" else ""
    flaws += _compared(recorded)
    flaws += _strangers(sites, recorded)
    if deep:
        flaws += _compiled(recorded)
    number = f"{len(recorded)} files of {len(versions)} packages"
    if flaws:
        yield Check("packages", State.FLAW, f"{number}: {len(flaws)} are not as their packages say", tuple(sorted(flaws)))
    else:
        compiled = ", and what is compiled of them is theirs" if deep else "; compiled files were not compared (--deep does)"
        yield Check("packages", State.OK, f"{number} as their packages say{compiled}")
    yield from _locked(here, versions)


def _compared(recorded: Mapping[str, str]) -> Iterator[Flaw]:
    import base64

    mine = trusted()
    hashed = [path for path, digest in recorded.items() if digest]
    for path, digest in zip(hashed, manifest.hashes(hashed), strict=True):
        if not digest:
            yield Flaw(path, "is missing, or cannot be read")
            continue
        if base64.urlsafe_b64encode(bytes.fromhex(digest)).rstrip(b"=").decode() != recorded[path]:
            yield Flaw(path, "was changed")
        problem = manifest.access(os.stat(path), mine)  # noqa: PTH116 - thousands of them
        if problem:
            yield Flaw(path, *problem)


def _strangers(sites: Iterable[str], recorded: Mapping[str, str]) -> Iterator[Flaw]:
    """What lies among the packages and belongs to none; and what would run at every start of Python."""
    known = set(recorded)
    folders = {os.path.dirname(path) for path in known}  # noqa: PTH120
    for site in sites:
        for folder, below, files in os.walk(site):
            below[:] = [one for one in below if one != "__pycache__" or folder in folders]
            for file in files:
                path = os.path.join(folder, file)  # noqa: PTH118
                if file.endswith(".pth") and (reason := _runs(Path(path))):
                    yield Flaw(path, reason, "remove it, if nobody knows it")
                elif path in known or file == ".made-by-aigw-install":
                    continue
                elif match := _PYC.fullmatch(path):
                    if f"{match['folder']}{match['stem']}.py" not in known:
                        yield Flaw(path, "belongs to no package")
                elif file != "_virtualenv.py" and not file.endswith(".pth"):
                    yield Flaw(path, "belongs to no package")


def _runs(path: Path) -> str:
    """Why a .pth file is not only a path: lines that begin with `import` are executed at every start of Python."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    code = [line for line in lines if line.startswith(("import ", "import\t"))]
    if not code or (path.name == "_virtualenv.pth" and code == ["import _virtualenv"]):
        return ""
    return "runs code at every start of this Python"


def _compiled(recorded: Mapping[str, str]) -> Iterator[Flaw]:
    """Compiled files that are something else than their sources."""
    import importlib.util
    import marshal

    for path in sorted(one for one in recorded if one.endswith(".py")):
        cached = Path(importlib.util.cache_from_source(path))
        try:
            content, source = cached.read_bytes(), Path(path).read_bytes()
        except OSError:
            continue  # not compiled, or told already
        try:
            same = bool(marshal.loads(content[16:]) == compile(source, path, "exec", dont_inherit=True))  # noqa: S302
        except (ValueError, EOFError, TypeError, SyntaxError):
            same = False
        if not same:
            yield Flaw(str(cached), "is not what its source compiles to", "remove it: Python makes it again")


def _locked(here: Installation, versions: Mapping[str, str]) -> Iterator[Check]:
    """Versions against the lock that this version of aigw was tested with."""
    place = here.root / ("aigw/integrity" if here.kind is Kind.PACKAGES else "packaging") / "requirements.lock"
    try:
        text = place.read_text("utf-8")
    except OSError:
        yield Check("lock", State.UNKNOWN, "the list of tested versions is not here")
        return
    wanted = {_normal(name): version for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE)}
    other = [
        f"{name} {versions[name]} (tested with {version})"
        for name, version in sorted(wanted.items())
        if versions.get(name, version) != version
    ]
    if other:
        yield Check("lock", State.NOTE, f"other versions than the tested ones: {', '.join(other[:8])}")
    else:
        yield Check("lock", State.OK, "every package in the version that aigw was tested with")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# ---- who may change and read what


def reach(paths: Iterable[Path], private: Iterable[Path]) -> list[Flaw]:
    """What others may change of *paths*, or change or read of *private* ones. Those that are not there are passed over."""
    mine = trusted()
    found = []
    hidden = [*private]
    for path in dict.fromkeys((*paths, *hidden)):
        try:
            status = path.stat()
        except OSError:
            continue
        if problem := manifest.access(status, mine):
            found.append(Flaw(str(path), *problem))
        elif path in hidden and status.st_mode & 0o044:
            private_mode = "700" if stat.S_ISDIR(status.st_mode) else "600"
            found.append(
                Flaw(str(path), f"may be read by others (mode {stat.S_IMODE(status.st_mode):04o})", f"chmod {private_mode}")
            )
    return sorted(found)
