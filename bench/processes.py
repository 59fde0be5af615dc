"""Child processes: started so that none outlives the benchmark, and weighed from outside (CPU time, memory)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class BenchError(Exception):
    """The benchmark cannot go on; the message says what to do."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def raise_file_limit() -> int:
    """As many open files as we may have (children inherit it). Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """A running process (and what it started): a context manager that ends all of it.

    Its output goes to *log*, and the end of that is in the error when it fails.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name, self.log = name, log
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one C call; nothing else can be inherited
            )
        self.pid = self.popen.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        ended = self.popen.poll()
        if error is not None and ended is not None:  # most likely why
            error.add_note(f"{self.name} had ended with code {ended}: {self.tail()}")
        self.stop()

    def stop(self, patience: float = 5.0) -> None:
        """SIGTERM, and after *patience* seconds SIGKILL, to its whole session."""
        for sent, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, sent)
            try:
                self.popen.wait(wait)
            except subprocess.TimeoutExpired:
                continue
            break
        with contextlib.suppress(ProcessLookupError):  # what it started and left behind
            os.killpg(self.pid, signal.SIGKILL)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def wait_for_port(self, port: int, patience: float = 30.0) -> None:
        """Until it accepts connections. Raises BenchError when it died or never does."""
        deadline = time.monotonic() + patience
        while True:
            if self.popen.poll() is not None:
                raise BenchError(f"{self.name} ended with code {self.popen.returncode}:\n{self.tail()}")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise BenchError(
                        f"{self.name} does not listen on port {port} after {patience:.0f} s:\n{self.tail()}"
                    ) from None
                time.sleep(0.02)
            else:
                return

    def tree(self) -> list[int]:
        """Its process id and those of all its descendants."""
        parents: dict[int, list[int]] = {}
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    stat = Path(entry.path, "stat").read_text()
                    parents.setdefault(int(stat[stat.rindex(")") + 2 :].split()[1]), []).append(int(entry.name))
        found, unseen = [], [self.pid]
        while unseen:
            pid = unseen.pop()
            found.append(pid)
            unseen += parents.get(pid, [])
        return found

    def cpu(self) -> float:
        """CPU seconds, user and system, of all threads of the whole tree since its start.

        The kernel's CPU clock of a process: what /proc/PID/stat shows as utime + stime, in nanoseconds where that counts in
        hundredths of a second.
        """
        spent = 0.0
        for pid in self.tree():
            with contextlib.suppress(OSError):  # it ended meanwhile
                spent += time.clock_gettime((~pid << 3) | 2)  # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED), linux/posix-timers.h
        return spent

    def resident(self) -> int:
        """Bytes of resident memory of the whole tree (pages shared between its processes count in each)."""
        return sum(self._status(pid, "VmRSS") * 1024 for pid in self.tree())

    def peak(self) -> int:
        """The most that was resident so far, in bytes."""
        return sum(self._status(pid, "VmHWM") * 1024 for pid in self.tree())

    def threads(self) -> int:
        return sum(self._status(pid, "Threads") for pid in self.tree())

    def open_files(self) -> int:
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self.tree())

    @staticmethod
    def _status(pid: int, field: str) -> int:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1])
        raise BenchError(f"/proc/{pid}/status has no {field}: this benchmark needs Linux")
