"""Counters in memory that the workers of one machine share: one truth for limits, budgets and requests at once.

A table in a file without a name that all of them have mapped. Whoever reads or changes it holds a record lock on that file,
which the kernel takes back when its holder dies. (Measured: lock and unlock take 1 us; a lease in the table would have to
time out first, and nobody could count until then.) What is about to change is written down first, so that whoever comes after
one that died half-way puts it back as it was.

How much of each gauge and period each worker holds is kept beside the sum: `forget` gives back what a dead one held. Windows
slide as those in the memory of one process do (see `counters.py`); what a dead worker took of them fades with them.

**The table has an end.** Sixteen entries share a row, which the key's hash names. A full row lets go of what is over, else of
the period that is primed again most easily (nobody holds any of it), else of the oldest window.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from math import inf
from struct import Struct

from aigw.errors import StoreError
from aigw.storage.base import Claim, Permit
from aigw.storage.counters import GAUGE_RETRY, Window, counted, wait_for

ENTRIES = 65_536
"""Counters there is room for: 10,000 consumers with a handful each."""

MOST = 128
"""Claims of one hold."""

TRIES = 20
"""Looks at a lock that another worker has, before this one sleeps for it: it is held for some 10 us, a look takes 1, and to be
woken takes far longer (measured on two busy processors: 92 us a hold instead of 230)."""

SWEPT_AT_ONCE = 1024
"""Entries that a sweep looks at while it has the lock (about 1 ms)."""

REMEMBERED = 50_000
"""Places of keys that a process remembers."""

_WAYS = 16
_DIGEST = 16
_NOBODY = bytes(_DIGEST)
_GAUGE, _PERIOD = 0, -1  # in place of a window's length
_HEAD = Struct("<3q")  # entries, workers, entries that are being changed
_CHANGING = Struct("<q")
_CHANGING_AT = 16
_LOG_AT = 64
_SLOT = Struct("<q")


def make(workers: int, entries: int = ENTRIES) -> int:
    """An empty table for so many *workers*: a descriptor, which processes inherit that are given it. Raises OSError."""
    entries = -(-entries // _WAYS) * _WAYS
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("aigw-counters", os.MFD_CLOEXEC)
    else:  # not Linux
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, _Layout(entries, workers).size)
        os.pwrite(descriptor, _HEAD.pack(entries, workers, 0), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class _Layout:
    """Where things are: the head, what is being changed, the digests of all keys (row by row), the entries."""

    def __init__(self, entries: int, workers: int) -> None:
        # a window's length; its number, or when the period ends; used; used in the window before; held, worker by worker
        self.entry = Struct(f"<qdqq{workers}q")
        self.logged = _SLOT.size + _DIGEST + self.entry.size
        self.digests = -(-(_LOG_AT + MOST * self.logged) // 4096) * 4096
        self.data = self.digests + entries * _DIGEST
        self.size = self.data + entries * self.entry.size


class _Entry:
    """One counter as it stands in the table, or will."""

    __slots__ = ("held", "mark", "slot", "window")

    def __init__(self, slot: int, window: Window, mark: float) -> None:
        self.slot, self.window, self.mark = slot, window, mark
        self.held = 0


class SharedCounters:
    """`Counters` for worker number *worker* of those that share a table. With -1 it holds nothing: a supervisor's."""

    def __init__(self, descriptor: int, worker: int) -> None:
        """*descriptor* is what `make` made; it is closed by `close`."""
        self._descriptor, self._worker = descriptor, worker
        self._memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        self._entries, self._workers, _ = _HEAD.unpack_from(self._memory)
        self._layout = layout = _Layout(self._entries, self._workers)
        self._entry, self._digests, self._data = layout.entry, layout.digests, layout.data
        self._rows: int = self._entries // _WAYS
        self._places: dict[tuple[str, int], tuple[bytes, int]] = {}

    # --- the contract -------------------------------------------------------------------------------------------------

    async def hold(self, claims: Sequence[Claim], now: float) -> Permit:
        """Waits for the lock as long as others have it: some microseconds each. Raises StoreError when there is no room."""
        if len(claims) > MOST:
            raise StoreError(f"{len(claims)} limits at once are more than the {MOST} that workers can share")
        self._lock()
        try:
            return self._hold(claims, now)
        finally:
            self._unlock()

    def settle(self, permit: Permit, used: Mapping[str, int]) -> None:
        if permit.token is None:
            return
        now: float = permit.token
        permit.token = None
        self._lock()
        try:
            changes = []
            for claim in permit.claims:
                real = used.get(claim.key, claim.amount)
                length = _PERIOD if claim.ends else claim.window
                slot = self._find(claim.key, length)
                if slot < 0 or (length > 0 and real == claim.amount):
                    continue
                changes.append((slot, claim, length, real))
            self._log([change[0] for change in changes])
            for slot, claim, length, real in changes:
                _, mark, total, before, *held = self._read(slot)
                if length > 0:
                    window = Window(int(mark))
                    window.used, window.before = total, before
                    window.correct(int(now // length), real - claim.amount)
                    total, before = window.used, window.before
                else:
                    total += (real if length else 0) - claim.amount
                    if self._worker >= 0:
                        held[self._worker] -= claim.amount
                    if not length:
                        total = max(0, total)
                self._write(slot, length, mark, total, before, *held)
            self._done()
        finally:
            self._unlock()

    def release(self, permit: Permit) -> None:
        self.settle(permit, {claim.key: 0 for claim in permit.claims})

    async def prime(self, used: Mapping[str, tuple[int, float]]) -> None:
        self._lock()
        try:
            for key, (amount, ends) in used.items():
                if self._find(key, _PERIOD) < 0:
                    slot = self._room(key, _PERIOD, set())
                    self._log([slot])
                    self._take(slot, key, _PERIOD)
                    self._write(slot, _PERIOD, ends, amount, 0, *[0] * self._workers)
                    self._done()
        finally:
            self._unlock()

    async def read(self, keys: Sequence[str]) -> list[int | None]:
        self._lock()
        try:
            slots = [self._find(key, _PERIOD) for key in keys]
            return [None if slot < 0 else self._read(slot)[2] for slot in slots]
        finally:
            self._unlock()

    def add(self, used: Mapping[str, int]) -> None:
        self._lock()
        try:
            for key, amount in used.items():
                slot = self._find(key, _PERIOD)
                if slot >= 0:
                    length, mark, total, before, *held = self._read(slot)
                    self._log([slot])
                    self._write(slot, length, mark, total + amount, before, *held)
                    self._done()
        finally:
            self._unlock()

    async def sweep(self, now: float) -> None:
        """Windows, periods and gauges that are over go. Others may count in between."""
        for start in range(0, self._entries, SWEPT_AT_ONCE):
            self._lock()
            try:
                for slot in self._taken(start, start + SWEPT_AT_ONCE):
                    if self._over(self._read(slot), now):
                        self._leave(slot)
            finally:
                self._unlock()
            await asyncio.sleep(0)

    async def close(self) -> None:
        self._memory.close()
        os.close(self._descriptor)

    # --- the supervisor's ---------------------------------------------------------------------------------------------

    def forget(self, worker: int) -> int:
        """Give back what a dead *worker* held of gauges and periods. Returns of how many."""
        found = 0
        self._lock()
        try:
            for slot in self._taken(0, self._entries):
                length, mark, used, before, *held = self._read(slot)
                if held[worker]:
                    used, held[worker] = used - held[worker], 0
                    self._log([slot])
                    self._write(slot, length, mark, used, before, *held)
                    self._done()
                    found += 1
        finally:
            self._unlock()
        return found

    # --- holding ------------------------------------------------------------------------------------------------------

    def _hold(self, claims: Sequence[Claim], now: float) -> Permit:
        entries: dict[tuple[str, int], _Entry] = {}
        left: list[int] = []  # of each, before this hold
        after: list[int] = []
        unknown: list[str] = []
        refused, wait = None, 0.0
        for claim in claims:
            length = _PERIOD if claim.ends else claim.window
            entry = entries.get((claim.key, length))
            if entry is None:
                slot = self._find(claim.key, length)
                if slot < 0 and length == _PERIOD:
                    unknown.append(claim.key)
                    continue
                entry = entries[claim.key, length] = self._entry_of(slot, claim, length, now)
            window = entry.window
            uses = counted(window, length, now) if length > 0 and window.before else window.used
            left.append(claim.limit - uses + entry.held)
            after.append(claim.limit - uses - claim.amount)
            if after[-1] < 0 and refused is None:
                refused = claim
                wait = _wait(window, claim, now)
            window.used += claim.amount
            entry.held += claim.amount
        if unknown:
            return Permit(unknown=unknown)
        if refused is not None:
            return Permit((), refused, wait, None, [max(0, one) for one in left])
        self._commit(entries)
        return Permit(tuple(claims), None, 0.0, now, after)

    def _entry_of(self, slot: int, claim: Claim, length: int, now: float) -> _Entry:
        if length <= 0:
            mark, window = (claim.ends, Window(0))
            if slot >= 0:
                _, mark, window.used, *_ = self._read(slot)
            return _Entry(slot, window, mark)
        index = int(now // length)
        window = Window(index)
        if slot >= 0:
            _, mark, used, before, *_ = self._read(slot)
            window.index, window.used, window.before = int(mark), used, before
            if window.index not in (index, index + 1):  # a clock set back a little keeps the newer window
                window.move_to(index)
        return _Entry(slot, window, float(window.index))

    def _commit(self, entries: Mapping[tuple[str, int], _Entry]) -> None:
        used = {entry.slot for entry in entries.values()}
        for (key, length), entry in entries.items():
            if entry.slot < 0:
                entry.slot = ~self._room(key, length, used)  # (complement: it is new)
                used.add(~entry.slot)
        self._log([entry.slot if entry.slot >= 0 else ~entry.slot for entry in entries.values()])
        for (key, length), entry in entries.items():
            window = entry.window
            slot = entry.slot
            if slot < 0:
                slot = ~slot
                self._take(slot, key, length)
                held = [0] * self._workers
            else:
                held = list(self._read(slot)[4:])
            if length <= 0 and self._worker >= 0:
                held[self._worker] += entry.held
            self._write(slot, length, entry.mark, window.used, window.before, *held)
        self._done()

    # --- the table ----------------------------------------------------------------------------------------------------

    def _lock(self) -> None:
        for _ in range(TRIES):
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pass
        else:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        if _CHANGING.unpack_from(self._memory, _CHANGING_AT)[0]:
            self._put_back()

    def _unlock(self) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def _log(self, slots: Sequence[int]) -> None:
        """Write down how *slots* are, before they change."""
        memory, layout = self._memory, self._layout
        at = _LOG_AT
        for slot in slots:
            digest, entry = self._digests + slot * _DIGEST, self._data + slot * self._entry.size
            memory[at : at + layout.logged] = (
                _SLOT.pack(slot) + memory[digest : digest + _DIGEST] + memory[entry : entry + self._entry.size]
            )
            at += layout.logged
        _CHANGING.pack_into(memory, _CHANGING_AT, len(slots))  # last: from here on it counts

    def _done(self) -> None:
        _CHANGING.pack_into(self._memory, _CHANGING_AT, 0)

    def _put_back(self) -> None:
        """Whoever had the lock died before it was done."""
        memory, layout = self._memory, self._layout
        for number in range(_CHANGING.unpack_from(memory, _CHANGING_AT)[0]):
            at = _LOG_AT + number * layout.logged
            slot = _SLOT.unpack_from(memory, at)[0]
            digest, entry = self._digests + slot * _DIGEST, self._data + slot * self._entry.size
            at += _SLOT.size
            memory[digest : digest + _DIGEST] = memory[at : at + _DIGEST]
            memory[entry : entry + self._entry.size] = memory[at + _DIGEST : at + _DIGEST + self._entry.size]
        self._done()

    def _read(self, slot: int) -> tuple[int, float, int, int, *tuple[int, ...]]:
        return self._entry.unpack_from(self._memory, self._data + slot * self._entry.size)

    def _write(self, slot: int, *values: float) -> None:
        self._entry.pack_into(self._memory, self._data + slot * self._entry.size, *values)

    def _place(self, key: str, length: int) -> tuple[bytes, int]:
        """The digest of a key, and the slot where it was last."""
        place = self._places.get((key, length))
        if place is None:
            if len(self._places) >= REMEMBERED:
                self._places.clear()
            digest = blake2b(f"{length}:{key}".encode("utf-8", "surrogatepass"), digest_size=_DIGEST).digest()
            place = self._places[key, length] = (digest, -1)
        return place

    def _find(self, key: str, length: int) -> int:
        """The slot of a key, or -1."""
        digest, slot = self._place(key, length)
        memory, digests = self._memory, self._digests
        if slot >= 0 and memory[digests + slot * _DIGEST : digests + (slot + 1) * _DIGEST] == digest:
            return slot
        first = self._first(digest)
        start = digests + first * _DIGEST
        slots = memory[start : start + _WAYS * _DIGEST]
        at = slots.find(digest)
        while at >= 0 and at % _DIGEST:  # found across two of them
            at = slots.find(digest, at + 1)
        if at < 0:
            return -1
        slot = first + at // _DIGEST
        self._places[key, length] = (digest, slot)
        return slot

    def _first(self, digest: bytes) -> int:
        """Where the row of a key begins."""
        return int.from_bytes(digest[:8], "little") % self._rows * _WAYS

    def _room(self, key: str, length: int, used: set[int]) -> int:
        """A slot for a new key, which is none of those in *used*. Raises StoreError when all of its row are held."""
        first = self._first(self._place(key, length)[0])
        best, worth = -1, inf
        for slot in range(first, first + _WAYS):
            if slot in used:
                continue
            at = self._digests + slot * _DIGEST
            if self._memory[at : at + _DIGEST] == _NOBODY:
                return slot
            window, mark, total, _, *held = self._read(slot)
            if any(held):
                continue
            value = 0.0 if window == _GAUGE and not total else 1.0 if window == _PERIOD else 2.0 + mark * max(window, 1)
            if value < worth:
                best, worth = slot, value
        if best < 0:
            raise StoreError("there is no room for another limit in the memory that the workers share")
        return best

    def _take(self, slot: int, key: str, length: int) -> None:
        digest = self._place(key, length)[0]
        at = self._digests + slot * _DIGEST
        self._memory[at : at + _DIGEST] = digest
        self._places[key, length] = (digest, slot)

    def _leave(self, slot: int) -> None:
        at = self._digests + slot * _DIGEST
        self._memory[at : at + _DIGEST] = _NOBODY

    def _taken(self, start: int, end: int) -> Iterator[int]:
        """The slots in use between two."""
        end = min(end, self._entries)
        digests = self._memory[self._digests + start * _DIGEST : self._digests + end * _DIGEST]
        for slot in range(start, end):
            at = (slot - start) * _DIGEST
            if digests[at : at + _DIGEST] != _NOBODY:
                yield slot

    @staticmethod
    def _over(entry: tuple[int, float, int, int, *tuple[int, ...]], now: float) -> bool:
        length, mark, used, _, *_ = entry
        if length == _GAUGE:
            return not used
        if length == _PERIOD:
            return mark <= now
        return mark < int(now // length) - 1


def _wait(window: Window, claim: Claim, now: float) -> float:
    """Seconds until a claim that was refused may fit."""
    if claim.ends:
        return claim.ends - now
    return wait_for(window, claim, now) if claim.window else GAUGE_RETRY
