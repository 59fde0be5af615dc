"""Nothing is lost: every record is on the disk before the caller has its answer, and in the store a moment later.

`write` appends a line to a segment file with one `os.write`, so a record survives the death of the process from then on
(`kill -9` included), and hands it over in memory. A task brings what was handed over to the store in batches, and drops the
segments that are no longer needed. Whatever a dead process left behind is read back and appended again; the store skips the
records that it has, so each is counted exactly once.

**Segments.** Each belongs to one process, which keeps it locked (`flock`); whoever gets the lock may replay and remove it. A
segment is dropped when all of it is committed, and emptied when that is so for the one being written.

**The store is out of reach**: serving goes on. Up to `QUEUED` records wait in memory; beyond that only the disk keeps them,
and they are read back when the store answers again. The disk holds up to `disk_limit` bytes of them, all processes of this
directory together.

**The journal is full** (its limit, or the disk): new records wait in memory only, and when that is full as well they are lost,
counted, while serving goes on; or, with `refuse`, `refusing` says that nothing new may begin that would have to be recorded.

**Power cut.** The kernel has each line at once; the disk gets it within a second, nearly always by the store's commit. Only
what that is late for is synced here: a busy journal is emptied before the disk has to see any of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from aigw.errors import StoreError
from aigw.exchange import Record
from aigw.storage.base import Store
from aigw.storage.storable import decode_line, storable, write_line

log = logging.getLogger("aigw.storage")

BATCH = 2000
"""Records in one append: large enough to share a commit, small enough that a revoked key need not wait behind it."""

EARLY = 2000
"""Records that wait until the store is visited ahead of time: more, held at once, would be memory that no cache holds."""

QUEUED = 50_000
"""Records that wait in memory (about 110 MB) before only the disk keeps them."""

SEGMENT_BYTES = 4 * 1024 * 1024
"""A segment is closed at this size: about 6,000 records."""

DISK_LIMIT = 4 * 1024**3
"""Bytes of journal on the disk: about six million records."""

INTERVAL = 0.5
"""Seconds between two visits to the store."""

LONGEST_PAUSE = 5.0
"""Seconds between two visits to a store that is out of reach."""

RESCAN = 30.0
"""Seconds between two looks for what other processes left behind."""

SYNC_INTERVAL = 0.5
"""Seconds between two looks for records that the store should have by now, and the disk must: none waits for it longer than
twice this."""

READ_BYTES = 1024 * 1024

ROOM = 1024 * 1024
"""Bytes that must be free on the disk before a journal that found it full counts as writable again."""

REFUSED = "gateway_overloaded"
"""The error of exchanges that were refused because the journal is full: they cost nobody anything, and wait for no room."""

SUFFIX = ".journal"

DAMAGED = "damaged.lines"

ROOM_AGAIN = 0.9
"""The share of its limit that a journal which was full may take when it is written again."""


class _Segment:
    """One file, open and locked. `last` is the number of the last queued record in it; `only` counts those that are in no
    queue, so it has to be read back before it can go. `synced` bytes are known to be on the disk."""

    __slots__ = ("descriptor", "last", "only", "path", "size", "synced", "torn")

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor = path, descriptor
        self.size = self.synced = self.last = self.only = 0
        self.torn = False  # ends in half a line

    @classmethod
    def create(cls, directory: Path) -> _Segment:
        """A new one, named so that no other process has it and that names sort by age."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        while True:
            path = directory / f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
            segment = cls(path, os.open(path, flags, 0o600))
            if segment._lock():
                return segment  # else another process took it for an abandoned one in the moment before it was locked

    @classmethod
    def claim(cls, path: Path) -> _Segment | None:
        """One that a dead process left behind; None when its process lives, or somebody else was faster."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        segment = cls(path, descriptor)
        return segment if segment._lock() else None

    def _lock(self) -> bool:
        """True when it is ours and still to be found in the directory; else it is closed."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self.descriptor).st_nlink:
                return True
        except BlockingIOError:
            pass
        except BaseException:
            self.close()
            raise
        self.close()
        return False

    def read(self, offset: int) -> tuple[list[Record], list[bytes], list[bytes], int]:
        """About a megabyte of it from *offset*: the records, their lines, the lines that are no records, and the offset to go
        on from (the same one at the end)."""
        block = os.pread(self.descriptor, READ_BYTES, offset)
        while (end := block.rfind(b"\n") + 1) == 0 and (more := os.pread(self.descriptor, READ_BYTES, offset + len(block))):
            block += more
        records: list[Record] = []
        lines: list[bytes] = []
        damaged: list[bytes] = []
        for line in block[:end].split(b"\n"):
            if line:
                try:
                    records.append(decode_line(line))
                    lines.append(line)
                except (msgspec.MsgspecError, ValueError):
                    damaged.append(line)
        if not end and block:  # the last line was never finished, so nobody was told that it is kept
            with contextlib.suppress(msgspec.MsgspecError, ValueError):
                records.append(decode_line(block))
                lines.append(block)
            end = len(block)
        return records, lines, damaged, offset + end

    def sync(self) -> None:
        """Have the disk take what was written so far."""
        size = self.size
        os.fsync(self.descriptor)
        self.synced = size

    def close(self) -> None:
        os.close(self.descriptor)  # and so the lock

    def remove(self) -> None:
        """Unlink first: nobody may get the lock of a file that can still be found."""
        self.path.unlink(missing_ok=True)
        self.close()


class Journal:
    """The way of records into the store. Numbers for metrics, all only growing but `pending`:

    - `written`: records taken by `write`; `committed`: of those, how many the store has; `pending`: the rest;
    - `failed`: records that could not be put on the disk (full, or at `disk_limit`) and wait in memory only;
    - `lost`: of those, how many found no room in memory either. Anything but 0 is an alarm;
    - `replayed`: records that others left behind, brought to the store; `recovered`: of those, how many it did not have;
    - `damaged`: lines, or records no store takes; they are kept in a file beside the segments;
    - `unrecorded`: refusals for want of room, of which nothing is kept.

    `refusing` says that new exchanges are to be refused; `size` are the bytes of it on the disk.
    """

    def __init__(
        self,
        directory: Path,
        store: Store,
        *,
        fsync: bool = True,
        queued: int = QUEUED,
        segment_bytes: int = SEGMENT_BYTES,
        disk_limit: int = DISK_LIMIT,
        interval: float = INTERVAL,
        refuse: bool = False,
    ) -> None:
        """Makes *directory* (0700) when it is missing, and the first segment in it. Raises StoreError when it cannot."""
        self.written = self.committed = self.failed = self.lost = self.replayed = self.recovered = self.damaged = 0
        self.unrecorded = 0
        self.refusing = False  # only with *refuse*
        self.caught_up = False  # what dead processes left behind has been brought to the store
        self.limit = disk_limit
        self._directory, self._store, self._fsync = directory, store, fsync
        self._most_queued, self._segment_bytes, self._disk_limit, self._interval = queued, segment_bytes, disk_limit, interval
        self._refuse = refuse
        self._others_bytes = 0  # of segments in the directory that are not ours
        self._queue: list[Record] = []
        self._lines: list[bytes] = []  # of the same records
        self._taken = 0  # records ever queued
        self._done = 0  # of those, committed
        self._on_disk_only = 0
        self._spilling = False  # the queue is full: records go to the disk only
        self._old: list[_Segment] = []  # closed for writing
        self._old_bytes = 0
        self._unwritable = False
        self._memory_only = False
        self._down = False
        self._closing = asyncio.Event()
        self._due = asyncio.Event()  # the store is to be visited now
        self._tasks: list[asyncio.Task[None]] = []
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._segment = _Segment.create(directory)
            self._others_bytes = self._measured()
        except OSError as error:
            raise StoreError(
                f"cannot write the journal in {directory}: {error.strerror}. "
                "Give this user write access to it, or choose another place with --data-dir"
            ) from None

    @property
    def pending(self) -> int:
        """Records that the store does not have yet."""
        return len(self._queue) + self._on_disk_only

    @property
    def size(self) -> int:
        """Bytes on the disk that the store does not have, or not for long."""
        return self._segment.size + self._old_bytes + self._others_bytes

    @property
    def full(self) -> bool:
        """Whether new records wait in memory only."""
        return self._unwritable

    # --- in the walk --------------------------------------------------------------------------------------------------

    def write(self, *records: Record) -> None:
        """Keep *records*: safe from the death of this process when it returns, in the store soon. Never raises, never waits
        for the store."""
        if not records:
            return
        self.written += len(records)
        lines = [_line(record) for record in records]
        segment = self._segment
        if segment.size >= self._segment_bytes:
            segment = self._rotate()
        kept = self._put(segment, b"\n".join(lines) + b"\n")
        if not kept or self._spilling or len(self._queue) >= self._most_queued:
            self._hold(records, lines, segment, kept=kept)
            return
        self._queue += records
        self._lines += lines
        self._taken = segment.last = self._taken + len(records)
        if len(self._queue) >= EARLY and not self._down:
            self._due.set()

    def _hold(self, records: Sequence[Record], lines: Sequence[bytes], segment: _Segment, *, kept: bool) -> None:
        """Keep records where there is room: on the disk only, when they are there and the queue is full; in memory only, when
        the disk is."""
        if kept:
            self._spilling = True
            self._on_disk_only += len(records)
            segment.only += len(records)
            return
        if self.refusing:
            counted = [pair for pair in zip(records, lines, strict=True) if pair[0].error != REFUSED]
            self.unrecorded += len(records) - len(counted)
            self.committed += len(records) - len(counted)
            records, lines = [record for record, _ in counted], [line for _, line in counted]
        room = max(0, 2 * self._most_queued - len(self._queue))
        self._queue += records[:room]
        self._lines += lines[:room]
        self._taken = segment.last = self._taken + len(records[:room])
        self._memory_only = True
        self.lost += len(records[room:])  # no disk, no store, no memory

    def _put(self, segment: _Segment, line: bytes) -> bool:
        """One write of one line, or several: all of it or nothing."""
        if segment.torn:
            line = b"\n" + line
        length = len(line)
        try:
            # once it was full there must be room again for many, or a short record opens for a moment what a longer one closes
            limit = self._disk_limit * ROOM_AGAIN if self._unwritable else self._disk_limit
            if segment.size + self._old_bytes + self._others_bytes + length > limit:
                raise OSError(0, f"it has reached its limit of {self._disk_limit} bytes")
            if os.write(segment.descriptor, line) == length:
                segment.size += length
                if segment.torn or self._unwritable:
                    self._written_again(segment)
                return True
            segment.torn = True
            os.ftruncate(segment.descriptor, segment.size)
            segment.torn = False
            raise OSError(0, "the disk is full")
        except OSError as error:
            self.failed += line.count(b"\n")
            if not self._unwritable:
                self._unwritable = True
                self.refusing = self._refuse
                what = "requests are refused" if self._refuse else "new records wait in memory only"
                log.error("the journal in %s cannot be written: %s; %s", self._directory, error.strerror, what)
            return False

    def _written_again(self, segment: _Segment) -> None:
        segment.torn = False
        if self._unwritable:
            self._unwritable = self.refusing = False
            log.warning("the journal in %s can be written again", self._directory)

    def _rotate(self) -> _Segment:
        """Close the segment for writing and begin another; when that is impossible the old one goes on growing."""
        try:
            segment = _Segment.create(self._directory)
        except OSError:
            return self._segment
        self._old.append(self._segment)
        self._old_bytes += self._segment.size
        self._segment = segment
        return segment

    # --- beside the walk ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to bring records to the store, those that earlier processes left behind among them."""
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._run(), name="journal"))
        if self._fsync:
            self._tasks.append(loop.create_task(self._keep_synced(), name="journal-sync"))

    async def recover(self) -> int:
        """Bring to the store what dead processes left behind. Returns how many records it did not have. Raises StoreError."""
        before = self.recovered
        for path in sorted(self._directory.glob("*" + SUFFIX)):
            segment = _Segment.claim(path)  # not our own: those are locked
            if segment is None:
                continue
            try:
                if not await self._read_back(segment):
                    break
                await asyncio.to_thread(segment.path.unlink, missing_ok=True)
            finally:
                segment.close()
        if self.recovered > before:
            log.info("%d records of an earlier process were brought to the store", self.recovered - before)
        return self.recovered - before

    async def close(self, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - what is not done by then stays on the disk
        """Bring what is left to the store, for at most *timeout* seconds; the rest waits on the disk for the next start."""
        deadline = time.monotonic() + timeout
        self._closing.set()
        self._due.set()
        _, unfinished = await asyncio.wait(self._tasks, timeout=timeout) if self._tasks else (set(), set())
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        self._tasks.clear()
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + max(0.0, deadline - time.monotonic())):
                while self._queue:
                    await self._store_queued()
        except (StoreError, TimeoutError) as error:
            log.warning("the store does not take the last records: %s", error or "it is too slow")
        if self._queue and self._memory_only:
            for line in self._lines:  # a last chance on the disk; what is there twice is stored once
                self._put(self._segment, line + b"\n")
        if self.pending:
            log.warning("%d records wait in %s for the next start", self.pending, self._directory)
        for segment in (*self._old, self._segment):
            with contextlib.suppress(OSError):
                if segment.only or segment.last > self._done:
                    if self._fsync:
                        segment.sync()
                    segment.close()
                else:
                    segment.remove()
        self._old.clear()

    async def _run(self) -> None:
        visit = rescan = 0.0
        pause = self._interval
        while not self._closing.is_set():
            now = time.monotonic()
            if now >= visit or self._due.is_set():
                self._due.clear()
                try:
                    await self._visit()
                    if now >= rescan:
                        await self.recover()
                        self.caught_up = True
                        rescan = now + RESCAN
                    self._store_answers()
                    pause = self._interval
                except Exception as error:  # noqa: BLE001 - the border of this task: it must outlive whatever a store does
                    self._store_is_away(error)
                    pause = min(LONGEST_PAUSE, pause * 2)
                if self._down or self._unwritable:
                    with contextlib.suppress(OSError):
                        await self._look_for_room()
                visit = time.monotonic() + pause
            await _within(self._interval, self._due)

    def _measured(self) -> int:
        """Bytes of segments that are not ours."""
        ours = {segment.path for segment in (*self._old, self._segment)}
        total = 0
        for path in self._directory.glob("*" + SUFFIX):
            if path not in ours:
                with contextlib.suppress(OSError):
                    total += path.stat().st_size
        return total

    async def _look_for_room(self) -> None:
        """What others have on the disk; and whether a journal that was full can be written again: where requests are refused
        nobody else would find out."""
        self._others_bytes = await asyncio.to_thread(self._measured)
        if not self._unwritable:
            return
        free = os.statvfs(self._directory)
        if self.size < self._disk_limit and free.f_bavail * free.f_frsize > ROOM and not self._segment.torn:
            self._written_again(self._segment)

    async def _keep_synced(self) -> None:
        taken = self._taken
        while not self._closing.is_set():
            await _within(SYNC_INTERVAL, self._closing)
            if self._done < taken or self._on_disk_only:
                await asyncio.to_thread(
                    _sync, [segment for segment in (*self._old, self._segment) if segment.size > segment.synced]
                )
            taken = self._taken

    async def _visit(self) -> None:
        """Store what waits, then drop the segments that nobody needs any more."""
        await self._store_queued()
        if self._spilling and not self._queue:  # there is room in memory again
            self._spilling = self._rotate().only > 0  # still so when no new segment could be made
        done: list[_Segment] = []
        for segment in self._old:
            if segment.last > self._done:
                break
            if segment.only:
                if not await self._read_back(segment):
                    break
                self._on_disk_only -= segment.only
                self.committed += segment.only
                segment.only = 0
            done.append(segment)
        if done:
            del self._old[: len(done)]
            self._old_bytes -= sum(segment.size for segment in done)
            await asyncio.to_thread(_remove, done)
        current = self._segment
        if current.size and not self._queue and not current.only:  # idle: a restart will have nothing to read back
            os.ftruncate(current.descriptor, 0)
            current.size = current.synced = 0

    async def _store_queued(self) -> None:
        """Everything that is queued now, in batches; what comes meanwhile has the next turn."""
        target = self._taken
        while self._done < target:
            size = min(BATCH, target - self._done)
            await self._append(self._queue[:size], self._lines[:size])
            del self._queue[:size], self._lines[:size]  # only now: until it is committed it is ours
            self._done += size
            self.committed += size
        if not self._queue:
            self._memory_only = False

    async def _read_back(self, segment: _Segment) -> bool:
        """Store the records of a segment, with those that are queued in between. False when we were asked to stop."""
        ours = segment.only > 0
        offset, end = 0, -1
        while offset != end:
            if self._closing.is_set():
                return False
            end = offset
            records, lines, damaged, offset = await asyncio.to_thread(segment.read, offset)
            for start in range(0, len(records), BATCH):
                new = await self._append(records[start : start + BATCH], lines[start : start + BATCH])
                if not ours:
                    self.recovered += new
            if not ours:
                self.replayed += len(records)
            if damaged:
                await asyncio.to_thread(self._set_aside, damaged)
            await self._store_queued()
        return True

    async def _append(self, records: Sequence[Record], lines: Sequence[bytes]) -> int:
        try:
            return await self._store.append(records, lines)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - a record that breaks a store must not hold up all those behind it
            log.error(
                "the store failed on a batch of %d records (%s): trying each by itself", len(records), type(error).__name__
            )
        new = 0
        for record, line in zip(records, lines, strict=True):
            try:
                new += await self._store.append([record], [line])
            except StoreError:
                raise
            except Exception:  # noqa: BLE001 - as above
                await asyncio.to_thread(self._set_aside, [line])
        return new

    def _set_aside(self, lines: Sequence[bytes]) -> None:
        """Keep what nobody can read, for somebody who might."""
        self.damaged += len(lines)
        path = self._directory / DAMAGED
        log.error("%d damaged lines of the journal were set aside in %s", len(lines), path)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, b"".join(line + b"\n" for line in lines))
        finally:
            os.close(descriptor)

    def _store_is_away(self, error: Exception) -> None:
        if not self._down:
            self._down = True
            reason = error if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
            log.error("the store takes no records: %s. They wait in the journal (%s)", reason, self._directory)

    def _store_answers(self) -> None:
        if self._down:
            self._down = False
            log.warning("the store takes records again; %d still wait", self.pending)


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Wait for *event*, at most *seconds*."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _line(record: Record) -> bytes:
    try:
        return write_line(record)
    except (ArithmeticError, TypeError, ValueError):  # a text that is not Unicode, a number of more than 64 bits
        return write_line(storable(record))


def _sync(segments: Sequence[_Segment]) -> None:
    for segment in segments:
        with contextlib.suppress(OSError):  # it was just dropped, or the disk is failing: a write will say so
            segment.sync()


def _remove(segments: Sequence[_Segment]) -> None:
    for segment in segments:
        segment.remove()
