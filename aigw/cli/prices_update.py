"""`aigw prices update`: a signed list of prices that is newer than this version of aigw."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aigw.cli import output
from aigw.cli.locations import Locations, locations

if TYPE_CHECKING:
    from aigw.integrity.sshsig import Signer

NAMESPACE = "aigw-prices"
"""What a signature of a price file is for: one of something else does not open this door."""

LARGEST = 8 * 1024 * 1024

EXAMPLES = """\b
Examples:
  aigw prices update prices.jsonl --signers ours
  aigw prices update https://mirror.example.com/aigw/prices.jsonl --dry-run
  aigw prices update --remove           back to the prices of this version

\b
The signature stands beside the file (.sig) and is made with:
  ssh-keygen -Y sign -f KEY -n aigw-prices prices.jsonl
"""


def update(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(metavar="[FILE|URL]", help="A price file; its signature is beside it, with .sig behind its name."),
    ] = None,
    signers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Whose signature is believed, as ssh-keygen's allowed_signers; instead of the project's."
        ),
    ] = None,
    older: Annotated[bool, typer.Option("--older", help="Take one that is older than the one in use.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Go back to the prices that came with this version.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check it, and change nothing.")] = False,
) -> None:
    """Take over a list of prices, once its signature was checked. What [prices] of the config says still beats it."""
    from aigw.metering import price_list

    where = locations(context)
    path = where.data_path() / price_list.FILE_NAME
    if remove:
        if source is not None:
            raise typer.BadParameter("--remove takes no file")
        if not path.exists():
            output.note("The prices of this version are in use already.")
            return
        if not dry_run:
            path.unlink()
        _told(where, "The prices of this version are in use again.", dry_run=dry_run)
        return
    if source is None:
        raise typer.BadParameter("name a price file or its address (or --remove)", param_hint="FILE|URL")
    content, signature = _fetched(where, source)
    signer = _verified(content, signature, _signers(signers))
    try:
        header = price_list.checked(content)
    except ValueError as error:
        output.fail(f"{output.safe(source)}: {error}")
        raise typer.Exit(1) from None
    used = price_list.newest(where.data_path())
    with used.open("rb") as file:
        before = price_list.header(file.readline())
    if header.date < before.date and not older:
        day = header.date or "an unknown day"
        output.fail(f"it is of {day}, older than the one in use ({before.date}); --older takes it all the same")
        raise typer.Exit(1)
    what = f"{header.models} models of {header.tables} vendors, of {header.date or 'an unknown day'}"
    output.note(f"{what}; signed by {output.safe(signer.name)} ({signer.fingerprint})")
    if not dry_run:
        _write(path, content)
    _told(where, "These prices are in use.", dry_run=dry_run)


def _fetched(where: Locations, source: str) -> tuple[bytes, bytes]:
    """The file and its signature. Exits with 1 when one of them cannot be had."""
    try:
        if "://" in source:
            return asyncio.run(_downloaded(where, source))
        path = Path(source).expanduser()
        return _read(path), _read(path.with_name(f"{path.name}.sig"))
    except OSError as error:
        name = getattr(error, "filename", None) or source
        output.fail(f"{output.safe(str(name))} cannot be had: {error.strerror or error}")
        raise typer.Exit(1) from None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise OSError(0, "it is too large to be a price file", str(path))
    return content


async def _downloaded(where: Locations, url: str) -> tuple[bytes, bytes]:
    from aigw.gateway import messenger
    from aigw.upstream.http import HttpTransport

    if not url.startswith("https://") and not url.startswith(("http://127.0.0.1", "http://localhost", "http://[::1]")):
        raise OSError(0, "expected https://", url)
    http = HttpTransport(2)
    try:
        carrier = messenger(where.load_config(), http)
        found = []
        with output.working(f"fetching {url}"):
            for one in (url, f"{url}.sig"):
                status, _, body = await carrier.fetch("GET", one, {}, b"", 60.0)
                if status != 200:
                    raise OSError(0, f"it answered {status}", one)
                found.append(body)
        return found[0], found[1]
    finally:
        await http.close()


def _signers(file: Path | None) -> tuple[Signer, ...]:
    from aigw import integrity
    from aigw.integrity.sshsig import read_signers

    path = file if file is not None else Path(integrity.__file__).with_name("allowed_signers")
    try:
        found = read_signers(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{path}: {error}", param_hint="--signers") from None
    if not found:
        output.fail(
            "nobody is trusted to sign prices: no key of the project's has been made yet; name your own with --signers FILE"
        )
        raise typer.Exit(1)
    return found


def _verified(content: bytes, signature: bytes, signers: tuple[Signer, ...]) -> Signer:
    from aigw.integrity.sshsig import SignatureError, verify

    try:
        return verify(content, signature, signers, NAMESPACE, time.time())
    except SignatureError as error:
        output.fail(f"the price file is not believed: {error}")
        raise typer.Exit(1) from None


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _told(where: Locations, done: str, *, dry_run: bool) -> None:
    if dry_run:
        output.note("Nothing was changed.")
        return
    from aigw.cli import running

    output.note(done)
    if not running.tell(where):
        raise typer.Exit(1)
