"""`aigw top`: what happens now. Who is under way is asked of the server; what ended comes from the store, half a second
late."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from aigw.cli import control, figures, output, windows
from aigw.cli.language import is_ascii
from aigw.cli.locations import Locations, locations
from aigw.cli.screen import BOLD, CYAN, DIM, RED, YELLOW, Line, Screen, Span, crop, pad, plain
from aigw.errors import StoreError

if TYPE_CHECKING:
    from aigw.cli.recent import Recent, Row
    from aigw.exchange import Record
    from aigw.storage.base import Store

INTERVAL = 2.0
"""Seconds between two looks."""

WINDOW = 300.0
"""Seconds that the tables look back."""

LONGEST_WINDOW = 3600.0

PACE = 10
"""Seconds over which requests and tokens per second are averaged."""

MOST_ERRORS = 10
"""Recent errors shown at most."""

BLOCK = 30
"""Lines of a block of plain text, at most."""

MOST_AT_ONCE = 50_000
"""Records read in one look; more than a server writes between two."""

EXAMPLES = """\b
Examples:
  aigw top                          until q or Ctrl-C
  aigw top --since 30m              tables over the last half hour
  aigw top --interval 10            for a slow line
  aigw top --once                   one look, as plain text
"""

app = typer.Typer(rich_markup_mode=None)


class View(NamedTuple):
    """What is to be shown. `state` is the server's answer, None when none runs; `problem` says what could not be found out."""

    state: dict[str, Any] | None
    problem: str
    recent: Recent
    now: float
    interval: float


@app.command(epilog=EXAMPLES)
def top(
    context: typer.Context,
    interval: Annotated[float, typer.Option(min=0.2, max=3600, metavar="SECONDS", help="Between two looks.")] = INTERVAL,
    since: Annotated[
        str | None, typer.Option(metavar="SPAN", help="How far the tables look back: 30s, 5m, at most 1h.  [default: 5m]")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="One look, as plain text.")] = False,
) -> None:
    """Live: requests and tokens per second, streams, first-token time, who and which models, errors. q leaves.

    In a pipe, or with --once, it prints plain blocks. Exchanges count when they end.
    """
    watch(locations(context), interval=interval, window=window_of(since), once=once)


def window_of(text: str | None) -> float:
    """Seconds that the tables look back. Raises BadParameter."""
    try:
        window = WINDOW if text is None else windows.seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if window > LONGEST_WINDOW:
        raise typer.BadParameter("it looks back one hour at most; 'aigw stats --since' looks further")
    return max(window, PACE)


def watch(where: Locations, *, interval: float, window: float, once: bool) -> None:
    """Show what happens until somebody has seen enough; once, as text, with *once*."""
    asyncio.run(_watch(where, interval, window, once=once))


async def _watch(where: Locations, interval: float, window: float, *, once: bool) -> None:
    async with AsyncExitStack() as stack:
        source = _Source(where, stack, window, interval)
        if once:
            _print(await source.look())
        elif output.drawn(sys.stdout):
            await _live(source, interval)
        else:
            await _blocks(source, interval)


async def _blocks(source: _Source, interval: float) -> None:
    """Plain text, one block after the other."""
    with _signals() as over:
        while not over.stop:
            _print(await source.look())
            await over.wait(interval)
            if not over.stop:
                output.data("")


def _print(view: View) -> None:
    columns = shutil.get_terminal_size().columns
    moment = datetime.fromtimestamp(view.now).astimezone().isoformat(sep=" ", timespec="seconds")
    for line in [[Span(moment)], *picture(view, columns, BLOCK)]:
        output.data(plain(line))
    sys.stdout.flush()


async def _live(source: _Source, interval: float) -> None:
    with _signals() as over, Screen() as screen:
        looked = 0.0
        view = View(None, "looking ...", source.recent, time.time(), interval)
        while not over.stop:
            if time.monotonic() >= looked + interval:
                view = await source.look()
                looked = time.monotonic()
            columns, rows = _size()
            screen.draw(picture(view, columns, rows, live=True), columns, rows)
            await over.wait(max(0.0, looked + interval - time.monotonic()))
            if over.suspend:
                over.suspend = False
                screen.leave()
                os.kill(os.getpid(), signal.SIGSTOP)
                screen.enter()


def _size() -> tuple[int, int]:
    """Of the terminal itself: COLUMNS in the environment does not know of a resize."""
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        size = shutil.get_terminal_size()
    return max(size.columns, 10), max(size.lines, 3)


class _Over:
    """What somebody wants of the loop: `stop` (q, Ctrl-C, SIGTERM), `suspend` (Ctrl-Z), or to be redrawn (a resize)."""

    def __init__(self) -> None:
        self.stop = self.suspend = False
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    def end(self) -> None:
        self.stop = True
        self.wake()

    def pause(self) -> None:
        self.suspend = True
        self.wake()

    def key(self) -> None:
        """A key was pressed, or there is nobody any more."""
        try:
            typed = os.read(sys.stdin.fileno(), 64)
        except OSError:
            typed = b""
        if not typed or typed[:1] in b"qQ\x03\x04":
            self.end()

    async def wait(self, seconds: float) -> None:
        """Until somebody wants something, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()


@contextlib.contextmanager
def _signals() -> Iterator[_Over]:
    over, loop = _Over(), asyncio.get_running_loop()
    wanted: dict[int, Callable[[], None]] = {
        signal.SIGINT: over.end,
        signal.SIGTERM: over.end,
        signal.SIGHUP: over.end,
        signal.SIGWINCH: over.wake,
    }
    keys = output.drawn(sys.stdout) and sys.stdin.isatty()
    if keys:
        wanted[signal.SIGTSTP] = over.pause
        loop.add_reader(sys.stdin.fileno(), over.key)
    for number, deed in wanted.items():
        loop.add_signal_handler(number, deed)
    try:
        yield over
    finally:
        for number in wanted:
            loop.remove_signal_handler(number)
        if keys:
            loop.remove_reader(sys.stdin.fileno())


class _Source:
    """Where the figures come from. Neither a server nor a store need be there; both are looked for each time."""

    def __init__(self, where: Locations, stack: AsyncExitStack, window: float, interval: float) -> None:
        from aigw.cli.recent import Recent

        self.recent = Recent(window)
        self._where, self._stack, self._interval = where, stack, interval
        self._config = where.load_config()
        self._store: Store | None = None
        self._place: int | None = None

    async def look(self) -> View:
        state, problem = None, ""
        try:
            state = await asyncio.to_thread(control.ask, self._where.data_path())
        except OSError as error:
            problem = f"the server cannot be asked: {error.strerror}"
        now = time.time()
        try:
            await self._read(now)
        except StoreError as error:
            problem = problem or str(error)
        return View(state, problem, self.recent, now, self._interval)

    async def _read(self, now: float) -> None:
        if self._store is None:
            if not self._where.data_path().is_dir():  # to look is no reason to make a store
                return
            self._store = await self._stack.enter_async_context(self._where.store(self._config))
        first = self._place is None
        records, self._place = await self._store.appended(self._place, MOST_AT_ONCE)
        self.recent.add(records, now)
        if first:
            self.recent.errors.clear()
            self.recent.errors.extend(await self._store.records(failed=True, limit=self.recent.errors.maxlen or 0))


# the picture


def picture(view: View, columns: int, rows: int, *, live: bool = False) -> list[Line]:
    """The lines to show, at most *rows* of *columns*; the last ones go first where there is too little room."""
    lines = [*_head(view, columns), [], *_paces(view, columns), *_times(view, columns)]
    foot: list[Line] = []
    if live:
        foot = [[Span(f"last {_age(view.recent.window)}, every {view.interval:g} s; q leaves", DIM)]]
    room = rows - len(lines) - len(foot)
    some = min(len(view.recent.errors), MOST_ERRORS, room // 3 - 2)  # errors that the tables leave room for
    tables = _tables(view, columns, room - 1 - (some + 2 if some > 0 else 0)) if room >= 4 else []
    lines += [[], *tables] if tables else []
    errors = _errors(view, min(MOST_ERRORS, rows - len(lines) - len(foot) - 2))
    lines += [[], *errors] if errors else []
    lines = lines[: rows - len(foot)]
    if live:
        lines += [[]] * (rows - len(foot) - len(lines))
    return [*lines, *foot]


def _head(view: View, columns: int) -> list[Line]:
    state = view.state
    if state is None:
        words = view.problem or "aigw is not running; waiting for it ('aigw serve' starts it)"
        return [[Span(words, YELLOW)]]
    flight = state.get("in_flight", {})
    exchanges, streams = _number(flight.get("exchanges")), _number(flight.get("streams"))
    address = next(iter(state.get("addresses", {}).get("data", [])), "")
    left = [Span("aigw", BOLD), Span(f" up {_age(view.now - float(state.get('started_at', view.now)))}  ")]
    left.append(Span(output.safe(str(address)), DIM))
    right = [
        Span(f"{figures.count(exchanges)} in flight", BOLD if exchanges else ""),
        Span(f", {figures.count(streams)} streaming"),
    ]
    lines: list[Line]
    gap = columns - output.width("".join(span.text for span in (*left, *right)))
    lines = [[*left, Span(" " * gap), *right]] if gap >= 2 else [left, right]
    ready = state.get("ready") or ""
    trouble = f"not ready: {ready}" if ready else view.problem
    if trouble:
        lines.append([Span(output.safe(str(trouble)), RED)])
    resting = [
        f"{one.get('key')} rests {figures.duration(round(float(one.get('seconds', 0))) * 1_000_000)}"
        for provider in state.get("providers", [])
        for one in provider.get("resting", [])
    ]
    if resting:
        more = f" and {len(resting) - 2} more" if len(resting) > 2 else ""
        lines.append([Span(output.safe(", ".join(resting[:2]) + more), YELLOW)])
    return lines


def _paces(view: View, columns: int) -> list[Line]:
    """A line each: what it is, how much, and how it went, a second in each character."""
    room = max(0, min(120, columns - 21))
    seconds = view.recent.history(view.now, max(room, PACE))
    lines: list[Line] = []
    for place, label, style in ((0, "requests/s", CYAN), (2, "tokens/s", CYAN), (1, "errors/s", RED)):
        numbers = [second[place] for second in seconds]
        pace = sum(numbers[-PACE:]) / PACE
        shown = Span(pad(figures.rate(pace), 7, right=True), (style if style == RED else BOLD) if pace else "")
        spark = figures.sparkline(numbers[-room:] if room else [], ascii_only=is_ascii())
        lines.append([Span(pad(label, 12)), shown, Span("  "), Span(spark, style)])
    return lines


def _times(view: View, columns: int) -> list[Line]:
    total = view.recent.total()
    pieces = [
        f"first token p50 {figures.duration(total.first_p50)} p95 {figures.duration(total.first_p95)}",
        f"whole p50 {figures.duration(total.total_p50)} p95 {figures.duration(total.total_p95)}",
        f"cost {figures.money(view.recent.costs())}",
    ]
    lines: list[str] = []
    for piece in pieces:
        joined = f"{lines[-1]}   {piece}" if lines else piece
        if lines and output.width(joined) <= columns:
            lines[-1] = joined
        else:
            lines.append(piece)
    return [[Span(line)] for line in lines]


_CELLS: tuple[tuple[str, int, Callable[[Row, int], str]], ...] = (
    ("live", 4, lambda row, live: figures.count(live) if live else ""),
    ("reqs", 6, lambda row, live: figures.tokens(row.requests)),
    ("err %", 5, lambda row, live: figures.share(row.errors, row.requests).removesuffix(" %")),
    ("tok/s", 6, lambda row, live: figures.rate(row.speed)),
    ("first", 7, lambda row, live: figures.duration(row.first_p50)),
    ("out", 6, lambda row, live: figures.tokens(row.output)),
)
"""Behind the name, in this order, as many as there is room for: who is busy now, and what was done in the window."""

NAME_WIDTH = 13
"""Columns of a name that the figures leave it at least."""


def _tables(view: View, columns: int, room: int) -> list[Line]:
    """Models and consumers, side by side where there is room."""
    flight = (view.state or {}).get("in_flight", {})
    beside = columns >= 76
    width = (columns - 3) // 2 if beside else columns
    limit = room - 1 if beside else (room - 3) // 2
    models = _table("model", view.recent.rows("model", limit), flight.get("by_model", {}), width, limit)
    consumers = _table("consumer", view.recent.rows("consumer", limit), flight.get("by_consumer", {}), width, limit)
    if limit <= 0:
        return []
    if not beside:
        return [*models, [], *consumers]
    height = max(len(models), len(consumers))
    empty = [Span(" " * width)]
    models += [empty] * (height - len(models))
    consumers += [empty] * (height - len(consumers))
    return [[*left, Span("   "), *right] for left, right in zip(models, consumers, strict=True)]


def _table(kind: str, rows: Sequence[Row], live: dict[str, int], width: int, limit: int) -> list[Line]:
    from aigw.cli.recent import Row as Empty

    cells = list(_CELLS)
    while cells and width - sum(wide + 1 for _, wide, _ in cells) < NAME_WIDTH:
        cells.pop()
    name_width = width - sum(wide + 1 for _, wide, _ in cells)
    head = pad(kind, name_width) + "".join(" " + pad(title, wide, right=True) for title, wide, _ in cells)
    shown = [*rows, *(Empty(name) for name in live if all(row.name != name for row in rows))]
    lines: list[Line] = [[Span(head, DIM)]]
    for row in shown[:limit]:
        under_way = _number(live.get(row.name))
        text = [Span(pad(output.safe(row.name) or "(none)", name_width), CYAN)]
        text += [Span(" " + pad(show(row, under_way), wide, right=True)) for _, wide, show in cells]
        lines.append(text)
    return lines


def _errors(view: View, limit: int) -> list[Line]:
    records = list(view.recent.errors)[: max(0, limit)]
    if not records:
        return []
    wide = max(len(record.error) for record in records)
    return [[Span("recent errors", DIM)], *(_error(record, view.now, wide) for record in records)]


def _error(record: Record, now: float, wide: int) -> Line:
    moment = datetime.fromtimestamp(record.at + record.took / 1e6).astimezone()
    shown = moment.strftime("%H:%M:%S" if now - moment.timestamp() < 43200 else "%d %b %H:%M")
    model = record.model or record.requested_model
    where = f"{model} at {record.provider}" if record.provider else model
    who = "  ".join(filter(None, (record.consumer, where, record.id)))
    return [Span(f"{shown}  "), Span(pad(output.safe(record.error), wide), RED), Span("  " + crop(output.safe(who), 200))]


def _age(seconds: float) -> str:
    """12m, 3h 05m, 4d 3h: nothing that changes every second has to be sent every second."""
    minutes = int(seconds) // 60
    if minutes < 1:
        return f"{int(seconds)}s" if seconds == int(seconds) and seconds >= 1 else "<1m"
    if minutes < 60:
        return f"{minutes}m"
    if minutes < 48 * 60:
        return f"{minutes // 60}h {minutes % 60:02d}m"
    return f"{minutes // 1440}d {minutes % 1440 // 60}h"


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
