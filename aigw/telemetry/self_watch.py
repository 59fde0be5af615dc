"""The server looks at itself: are its files what was released, and does its process have or do what no gateway needs to?

What an implant cannot hide from the kernel is counted (`aigw_oddities`), logged and told as an alert of the kind `integrity`: a
child nobody started, a connection to an address that no configured host has, code from elsewhere, work while nobody asks for
any. One that changes the kernel's answers, or this file, is not found: see docs/trust.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Literal

from aigw import __version__
from aigw.hooks import Event
from aigw.integrity import installed, process, release
from aigw.integrity.installed import Check, Kind, State
from aigw.integrity.manifest import Flaw
from aigw.telemetry.metrics import Reading

log = logging.getLogger("aigw.integrity")

IDLE_MOST = 0.05
"""Share of a processor that may be used while nobody asks for anything; a quiet server uses 0.005."""

IDLE_LOOKS = 3
"""Looks in a row, without a request between them, that have to find more."""

SETTLE = 15.0
"""Seconds until a second look: a connection that is still being made (no handshake takes longer) is known by then, or gone."""

DAY = 86400.0

SERVING = 1.0
"""Seconds from the start until files are looked at: those who wait for the first answer come first."""

FIRST_ASKED = 60.0
"""Seconds after the start until the project is asked about this version."""

MOST_TOLD = 10
"""Flaws that are logged one by one."""


class SelfWatch:
    """What a process finds out about itself. `run` until it ends."""

    def __init__(
        self,
        told: Callable[[Event], None],
        *,
        work: Callable[[], tuple[int, int]] = lambda: (0, 0),
        children: Callable[[], Collection[int]] = tuple,
        ports: Callable[[], Collection[int]] = tuple,
        peers: Callable[[], Collection[str]] = tuple,
        hosts: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """*told* takes what is an alert; *work* says how many requests there were and are; the others what is expected:
        children by number, ports that we listen at, addresses that we connected to, and hosts that may have others."""
        self._told, self._work = told, work
        self._children, self._ports, self._peers, self._hosts = children, ports, peers, hosts
        self._roots = process.roots()
        self.intact: bool | None = None  # None: not looked, or nothing to compare with
        self.summary = "not looked at yet"
        self.withdrawn = ""  # why this version was
        self.flaws: tuple[Flaw, ...] = ()
        self.oddities: tuple[Flaw, ...] = ()
        self.idle_cpu: float | None = None
        self._settle = SETTLE
        self._busy_looks = 0
        self._last: tuple[float, float, int] | None = None  # when, seconds on the CPU, requests

    async def run(self, data_dir: Path, every: float, *, files: bool) -> None:
        """Look at the files once (*files*), then at the process every so many seconds (0: never)."""
        if files:
            await asyncio.sleep(SERVING)
            try:
                self.found(await asyncio.to_thread(examined, data_dir))
            except Exception as error:  # noqa: BLE001 - a look that fails must not end the server
                log.warning("what is installed could not be checked: %s", type(error).__name__)
        if not every or not process.available():
            return
        self._settle = min(SETTLE, every)
        while True:
            await asyncio.sleep(every)
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - as above
                log.warning("the process could not be looked at: %s", type(error).__name__)

    async def follow_releases(self, data_dir: Path) -> None:
        """Ask once a day what the project says of this version: it may be the one that has to go."""
        await asyncio.sleep(FIRST_ASKED)
        while True:
            try:
                withdrawn, newer = await asyncio.to_thread(asked, data_dir)
            except Exception as error:  # noqa: BLE001 - a mirror that is away must not end the server
                log.warning("what the project says of this version could not be asked: %s", error)
            else:
                if withdrawn:
                    self.withdrawn = withdrawn
                    text = f"aigw {__version__}, which serves here, was withdrawn: {withdrawn}. Run: aigw update"
                    log.error("integrity: %s", text)
                    self._tell("withdrawn", text, 1)
                elif newer:
                    log.info("aigw %s is there; this is %s. See: aigw update --check", newer, __version__)
            await asyncio.sleep(DAY)

    def found(self, checks: Iterable[Check]) -> None:
        """Say what *checks* came to."""
        checks = list(checks)
        self.flaws = tuple(flaw for one in checks for flaw in one.flaws)
        sure = all(one.state is not State.UNKNOWN for one in checks)
        self.intact = False if self.flaws else (True if sure and checks else None)
        self.summary = summary(checks)
        if not self.flaws:
            log.log(logging.DEBUG if self.intact is None else logging.INFO, "integrity: %s", self.summary)
            return
        log.error("integrity: %s; run: aigw verify", self.summary)
        for flaw in self.flaws[:MOST_TOLD]:
            log.error("integrity: %s %s", flaw.path, flaw.what)
        self._tell("files", f"{self.summary}. Run: aigw verify", len(self.flaws))

    async def look(self) -> None:
        """Look at the process once."""
        odd = await self._odd()
        if odd:
            await asyncio.sleep(self._settle)
            odd = [one for one in await self._odd() if one in odd]
        odd += self._idle()
        for flaw in odd:
            if flaw not in self.oddities:
                log.error("integrity: %s %s; look: %s", flaw.path, flaw.what, flaw.next or "aigw verify --runtime")
                self._tell(flaw.path, f"{flaw.path} {flaw.what}. Look: {flaw.next or 'aigw verify --runtime'}", 1)
        self.oddities = tuple(odd)

    async def _odd(self) -> list[Flaw]:
        def looked(peers: Collection[str]) -> list[Flaw]:
            return process.oddities(os.getpid(), process.Expected(self._children(), self._ports(), peers, self._roots))

        known = set(self._peers())
        found = looked(known)
        if any(one.path.startswith("socket ") for one in found) and self._hosts():
            known |= await asyncio.to_thread(process.addresses, self._hosts())
            found = looked(known)
        return found

    def _idle(self) -> list[Flaw]:
        """How much of a processor is used while nobody asks for anything."""
        now, used, (requests, active) = time.monotonic(), process.cpu(os.getpid()), self._work()
        last, self._last = self._last, (now, used, requests)
        if last is None or active or requests != last[2]:
            self._busy_looks = 0
            return []
        self.idle_cpu = (used - last[1]) / max(0.001, now - last[0])
        self._busy_looks = self._busy_looks + 1 if self.idle_cpu > IDLE_MOST else 0
        if self._busy_looks < IDLE_LOOKS:
            return []
        return [Flaw("processor", "is used by this process while nobody asks for anything", "aigw verify --runtime")]

    def _tell(self, subject: str, text: str, number: int) -> None:
        self._told(Event(kind="integrity", subject=subject, text=text, at=time.time(), facts={"flaws": number}))

    def readings(self) -> list[Reading]:
        """For metrics."""
        found = [Reading("version_withdrawn", "1 when the project has withdrawn this version.", int(bool(self.withdrawn)))]
        if self.intact is not None:
            found.append(Reading("integrity_ok", "0 when files are not what was released.", int(self.intact)))
        kinds = Counter(kind(one) for one in self.oddities)
        found += [
            Reading("oddities", "What this process has and should not.", kinds[name], labels={"kind": name}) for name in KINDS
        ]
        if self.idle_cpu is not None:
            found.append(Reading("idle_cpu", "Share of a processor used while nobody asked.", round(self.idle_cpu, 5)))
        return found


Sort = Literal["child", "socket", "code", "processor"]

KINDS: tuple[Sort, ...] = ("child", "socket", "code", "processor")


def kind(flaw: Flaw) -> Sort:
    """Which sort of oddity it is."""
    if flaw.path.startswith("process "):
        return "child"
    if flaw.path.startswith("socket "):
        return "socket"
    return "processor" if flaw.path in ("processor", "threads") else "code"


def asked(data_dir: Path) -> tuple[str, str]:
    """Why this version was withdrawn, and the newer one that is there; "" for none. The newest list of withdrawn versions stays
    in *data_dir*, for `aigw verify`. Raises MirrorError, OSError."""
    from aigw.integrity import kept, mirror  # what fetches is imported where it is asked for

    known = release.signers()
    if not release.names(known, release.RELEASE):
        raise mirror.MirrorError("nobody is trusted to sign releases: no key of the project's is in this aigw")
    found = mirror.quickest(mirror.bases(), known, time.time())
    names = [name for name in found.files if name.startswith(release.REVOKED)]
    if names:
        kept.keep(kept.folder(data_dir), {name: found.files[name] for name in names})
    newer = release.number(found.latest.version) > release.number(__version__)
    reason = found.revoked.reason(__version__) if found.revoked is not None else ""
    return reason, found.latest.version if newer else ""


def examined(data_dir: Path) -> list[Check]:
    """All checks of what is installed here; of a checkout none, whose files change all the time."""
    here = installed.find()
    if here.kind is Kind.CHECKOUT:
        return [Check("signature", State.UNKNOWN, "it runs from a checkout")]
    return list(installed.check(here, data_dir, release.signers()))


def summary(checks: Iterable[Check]) -> str:
    """All of it in a line."""
    checks = list(checks)
    flawed = [one for one in checks if one.state is State.FLAW]
    if flawed:
        return "; ".join(one.text for one in flawed)
    return "; ".join(one.text for one in checks if one.name in ("signature", "runtime", "packages"))
