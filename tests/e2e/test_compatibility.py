"""Whoever calls, whoever serves: the official SDKs at every front door, before every shape of provider, asking for one thing
after another. The answers come from an emulator that others wrote; what the gateway sent to it is looked at on its way.

The long form makes docs/compatibility.md; the quick one asks a few cells, and looks that the page has all of them.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from tests.e2e import sdks
from tests.e2e.conftest import Make
from tests.e2e.node import emulator, install
from tests.e2e.sdks import Got, Wanted
from tests.e2e.world import Gateway, eventually

pytestmark = pytest.mark.filterwarnings(
    "ignore:FUNCTION_CALL is not a valid FinishReason"
)  # the emulator's word to google-genai

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
FOLDER = Path(__file__).parent / "node-sdks"

FRONTS = {
    "chat": "OpenAI chat completions",
    "responses": "OpenAI Responses",
    "messages": "Anthropic Messages",
    "generate": "Gemini generateContent",
}

SDKS = {
    "python": dict(zip(FRONTS, ("openai", "openai", "anthropic", "google-genai"), strict=True)),
    "node": {"chat": "openai", "responses": "openai", "messages": "@anthropic-ai/sdk"},
    "ai": {
        "chat": "@ai-sdk/openai",
        "responses": "@ai-sdk/openai",
        "messages": "@ai-sdk/anthropic",
        "generate": "@ai-sdk/google",
    },
}


class Back(NamedTuple):
    """A provider: its catalog row, the model that is asked, what stands behind the emulator's address."""

    title: str
    kind: str
    model: str
    base: str = ""
    settings: str = ""


BACKS = {
    "chat": Back("OpenAI chat", "together", "gpt-5-mini", "/v1"),
    "responses": Back("OpenAI Responses", "openai", "gpt-5-pro", "/v1"),
    "anthropic": Back("Anthropic", "anthropic", "claude-sonnet-4-5", "/v1"),
    "gemini": Back("Gemini", "gemini", "gemini-2.5-flash", "/v1beta"),
    "bedrock": Back("Bedrock", "bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
    "azure": Back("Azure", "azure", "gpt-5-mini", settings='settings = {api_version = "2024-10-21"}'),
    "ollama": Back("Ollama", "ollama", "qwen3:8b"),
    "cohere": Back("Cohere", "cohere", "command-a-reasoning-08-2025"),
}

FEATURES = ("plain", "stream", "tools", "streamed tools", "image", "structured output", "thinking", "usage")

USAGE = {"prompt_tokens": sdks.INPUT, "completion_tokens": sdks.OUTPUT, "total_tokens": sdks.INPUT + sdks.OUTPUT}
USAGE |= {"input_tokens": sdks.INPUT, "output_tokens": sdks.OUTPUT}

FIXTURES = [
    {"match": {"userMessage": "use a tool", "hasToolResult": True}, "response": {"content": sdks.SAID, "usage": USAGE}},
    {
        "match": {"userMessage": "use a tool"},
        "response": {"toolCalls": [{"name": sdks.TOOL, "arguments": {"city": "Shanghai"}}]},
    },
    {"match": {"userMessage": "as json"}, "response": {"content": json.dumps(sdks.OBJECT), "usage": USAGE}},
    {"match": {"userMessage": "think"}, "response": {"content": sdks.TEXT, "reasoning": sdks.THOUGHT, "usage": USAGE}},
    {"match": {"userMessage": "say it"}, "response": {"content": sdks.TEXT, "usage": USAGE}},
]


# --- what is no tick, and why ----------------------------------------------------------------------------------------------

REASONS = {
    "sdk": "`@ai-sdk/openai` does not read `reasoning_content` in chat completions; the `openai` packages do.",
    "call": "`@ai-sdk/google` does not go on with its tool loop: the emulator ends a call with `finishReason: FUNCTION_CALL`, "
    "where Gemini says `STOP`. What it sends passes unchanged here; through every other provider the loop works.",
    "ollama": "The emulator writes `reasoning_content` on `/api/chat`, where Ollama writes `thinking`.",
    "counts": "The emulator counts 0 tokens on `/api/chat`, whatever it is told to say.",
    "cohere": "The emulator writes a thought as a text block on `/v2/chat`, where Cohere writes a `thinking` block.",
}
"""All there are. None of them may be a fault of the gateway."""


class Excuse(NamedTuple):
    """Where a reason holds: empty means everywhere."""

    reason: str
    features: tuple[str, ...] = ()
    fronts: tuple[str, ...] = ()
    backs: tuple[str, ...] = ()
    sdks: tuple[str, ...] = ()


EXCUSES = (
    Excuse("cohere", ("thinking",), ("responses", "messages", "generate"), ("cohere",)),
    Excuse("sdk", ("thinking",), ("chat",), sdks=("ai",)),
    Excuse("call", ("tools", "streamed tools"), ("generate",), ("gemini",), ("ai",)),
    Excuse("ollama", ("thinking",), ("generate",), ("ollama",)),
    Excuse("counts", ("usage",), ("generate",), ("ollama",)),
)


def excuse(sdk: str, front: str, back: str, feature: str) -> str:
    """The reason why this cell is no tick, "" when it has to be one."""
    for one in EXCUSES:
        pairs = ((one.sdks, sdk), (one.fronts, front), (one.backs, back), (one.features, feature))
        if all(not names or name in names for names, name in pairs):
            return one.reason
    return ""


# --- the way there ---------------------------------------------------------------------------------------------------------


class Tap:
    """A wire to the emulator that remembers what went over it (the emulator forgets images and schemas)."""

    def __init__(self, port: int) -> None:
        self._far = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._sent: list[bytearray] = []
        self._pairs: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                pair = threading.Thread(target=self._join, args=(near,), daemon=True)
                self._pairs.append(pair)
                pair.start()
                del near

    def _join(self, near: socket.socket) -> None:
        """Copy both ways until either side has ended; then nothing of the connection is left."""
        with near, suppress(OSError), socket.create_connection(("127.0.0.1", self._far)) as far:
            kept = bytearray()
            self._sent.append(kept)
            back = threading.Thread(target=self._copy, args=(far, near, None), daemon=True)
            back.start()
            self._copy(near, far, kept)
            back.join()

    @staticmethod
    def _copy(one: socket.socket, other: socket.socket, keep: bytearray | None) -> None:
        with suppress(OSError):
            while block := one.recv(65536):
                if keep is not None:
                    keep += block
                other.sendall(block)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """When the emulator has closed its ends, or soon does."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes `accept`; a mere close does not
        self._server.close()
        self._accepting.join(5)
        for pair in self._pairs:
            pair.join(5)

    def requests(self) -> list[tuple[str, bytes]]:
        """Path and body of each, so far."""
        found = []
        for kept in self._sent:
            data = bytes(kept)
            while data:
                head, _, data = data.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                size = int(length[1]) if length else 0
                found.append((head.split(b" ")[1].decode(), data[:size]))
                data = data[size:]
        return found


@contextmanager
def tap(port: int) -> Iterator[Tap]:
    made = Tap(port)
    try:
        yield made
    finally:
        made.close()


def config(port: int) -> str:
    lines = []
    for name, back in BACKS.items():
        lines += [f"[providers.{name}]", f'kind = "{back.kind}"', f'base_url = "http://127.0.0.1:{port}{back.base}"']
        lines += [f'keys = ["far-{name}-0123456789"]', "list_models = false", back.settings]
        lines += [f"[routes.to-{name}]", f'targets = [{{provider = "{name}", model = "{back.model}"}}]', "retries = 0"]
    return "\n".join([*lines, ""])


# --- what is asked, and what has to come of it -----------------------------------------------------------------------------


def asked(back: str, feature: str, mark: str) -> list[Wanted]:
    """A feature in one or two requests. *mark* makes each prompt its own, by which it is found on the wire."""
    model = f"to-{back}"
    if feature in ("plain", "stream"):
        return [Wanted(model, f"say it {mark}", stream=feature == "stream")]
    if feature in ("tools", "streamed tools"):
        return [Wanted(model, f"use a tool {mark}", tools=True, stream=feature == "streamed tools")]
    if feature == "image":
        return [Wanted(model, f"say it {mark}", image=True)]
    if feature == "structured output":
        return [Wanted(model, f"as json {mark}", schema=True)]
    if feature == "thinking":
        return [Wanted(model, f"think {mark}", think=True, stream=stream) for stream in (False, True)]
    return [Wanted(model, f"say it {mark}", stream=stream) for stream in (False, True)]


def fault(feature: str, wanted: Wanted, got: Got, sent: list[tuple[str, bytes]]) -> str:
    """What is wrong with an answer, "" when nothing is. *sent*: what the provider got for it."""
    if got.error:
        return got.error
    if not sent:
        return "nothing was sent"
    first = sent[0][1]
    if feature in ("tools", "streamed tools"):
        if [tuple(call) for call in got.calls] != [(sdks.TOOL, {"city": "Shanghai"})]:
            return f"calls {got.calls}"
        if got.said != sdks.SAID:
            return f"after the result: {got.said!r}"
        return "" if any(sdks.RESULT.encode() in body for _, body in sent[1:]) else "the result was not sent"
    if feature == "structured output":
        if got.text != json.dumps(sdks.OBJECT):
            return f"text {got.text!r}"
        return "" if b"celsius" in first else "the schema was not sent"
    if got.text != sdks.TEXT:
        return f"text {got.text!r}"
    if wanted.stream and got.pieces < 2:
        return f"{got.pieces} pieces"
    if feature == "image" and sdks.PNG64.encode() not in first:
        return "the image was not sent"
    if feature == "thinking" and got.thought != sdks.THOUGHT:
        return f"thought {got.thought!r}"
    if feature == "usage" and (got.input, got.output) != (sdks.INPUT, sdks.OUTPUT):
        return f"usage {got.input}, {got.output}"
    return ""


class Job(NamedTuple):
    """One request of one cell, by one SDK."""

    sdk: str
    front: str
    back: str
    feature: str
    wanted: Wanted
    mark: str


def jobs(chosen: dict[str, dict[str, str]], backs: tuple[str, ...], features: tuple[str, ...]) -> list[Job]:
    found: list[Job] = []
    for sdk, fronts in chosen.items():
        for front in fronts:
            for back in backs:
                for feature in features:
                    for number in range(len(asked(back, feature, ""))):
                        mark = f"(no. {len(found)}.)"
                        found.append(Job(sdk, front, back, feature, asked(back, feature, mark)[number], mark))
    return found


def through_python(gateway: Gateway, todo: list[Job]) -> list[Got]:
    with sdks.callers(gateway.url, gateway.key) as callers:
        return [callers[job.front](job.wanted) for job in todo]


def through_node(gateway: Gateway, todo: list[Job]) -> list[Got]:
    install(FOLDER / "node_modules/ai/package.json")
    given = {"png": sdks.PNG64, "schema": sdks.SCHEMA, "parameters": sdks.PARAMETERS, "name": sdks.TOOL}
    given |= {"description": sdks.DESCRIPTION, "result": sdks.RESULT}
    told = [msgspec.to_builtins(job.wanted) | {"sdk": job.sdk, "front": job.front} for job in todo]
    done = subprocess.run(
        [shutil.which("node") or "node", "ask.mjs"],
        cwd=FOLDER,
        input=json.dumps({"url": gateway.url, "key": gateway.key, "given": given, "jobs": told}),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [msgspec.json.decode(line, type=Got) for line in done.stdout.splitlines()]
    assert len(found) == len(todo)
    return found


Faults = dict[tuple[str, str, str, str], str]
"""By SDK, front, back and feature: what is wrong, "" when nothing is."""


def judged(todo: list[Job], answers: list[Got], wire: Tap) -> tuple[Faults, dict[tuple[str, str], set[str]]]:
    """The faults, and the paths at which each front's requests reached each back."""
    by_mark: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    for path, body in wire.requests():
        found = re.search(rb"\(no\. \d+\.\)", body)
        if found:
            by_mark[found[0].decode()].append((path, body))
    faults: Faults = {}
    paths: dict[tuple[str, str], set[str]] = defaultdict(set)
    for job, got in zip(todo, answers, strict=True):
        cell = (job.sdk, job.front, job.back, job.feature)
        faults[cell] = faults.get(cell) or fault(job.feature, job.wanted, got, by_mark[job.mark])
        model = re.escape(BACKS[job.back].model).replace(":", "(?::|%3A)")
        paths[job.front, job.back] |= {re.sub(model, "MODEL", path).partition("?")[0] for path, _ in by_mark[job.mark]}
    return faults, paths


# --- the page --------------------------------------------------------------------------------------------------------------

BEGIN, END = "<!-- made by tests/e2e/test_compatibility.py -->", "<!-- end -->"


def tables(faults: Faults, paths: dict[tuple[str, str], set[str]]) -> str:
    """A table for each front: a tick where an SDK can do it, the letter of a reason where one cannot."""
    letters = {reason: chr(ord("a") + number) for number, reason in enumerate(REASONS)}
    lines = [BEGIN, ""]
    for front, title in FRONTS.items():
        asking = [
            f"{names[front]} ({'Python' if sdk == 'python' else 'Node'})" for sdk, names in SDKS.items() if front in names
        ]
        lines += [f"### {title}", "", f"Asked by {', '.join(asking)}.", ""]
        lines += ["| provider | asked at | " + " | ".join(FEATURES) + " |", "|---|---|" + ":-:|" * len(FEATURES)]
        for back, provider in BACKS.items():
            cells = []
            for feature in FEATURES:
                asked_by = [sdk for sdk, names in SDKS.items() if front in names]
                unable = [sdk for sdk in asked_by if faults[sdk, front, back, feature]]
                why = sorted({letters[excuse(sdk, front, back, feature)] for sdk in unable})
                cells.append(" ".join(["✓"] * (len(unable) < len(asked_by)) + [f"({letter})" for letter in why]))
            where = "<br>".join(f"`{path}`" for path in sorted(paths[front, back]))
            lines.append(f"| {provider.title} | {where} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += [f"- ({letters[name]}) {text}" for name, text in REASONS.items()]
    return "\n".join([*lines, "", END])


@pytest.mark.long
def test_every_cell(make: Make, tmp_path: Path) -> None:
    """Each front before each back, every feature, every SDK: it works, or a reason that is written here says why it cannot. A
    reason that no longer holds is a fault, too. The page is made anew."""
    with emulator(tmp_path, FIXTURES) as far, tap(far.port) as wire:
        gateway = make(config(wire.port))
        todo = jobs(SDKS, tuple(BACKS), FEATURES)
        python = [job for job in todo if job.sdk == "python"]
        node = [job for job in todo if job.sdk != "python"]
        answers = through_python(gateway, python) + through_node(gateway, node)
        faults, paths = judged([*python, *node], answers, wire)
    wrong = [f"{' / '.join(cell)}: {what}" for cell, what in faults.items() if what and not excuse(*cell)]
    healed = [f"{' / '.join(cell)}: works" for cell, what in faults.items() if not what and excuse(*cell)]
    (tmp_path / "cells.txt").write_text("\n".join(wrong + healed))
    assert not wrong + healed, "\n".join(wrong + healed)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + tables(faults, paths) + rest.partition(END)[2])


def test_a_few_cells(make: Make, tmp_path: Path) -> None:
    """Python's SDKs before providers of another shape, and one of their own; all that was asked of each is one record."""
    chosen = {"python": {"messages": "", "chat": ""}}
    with emulator(tmp_path, FIXTURES) as far, tap(far.port) as wire:
        gateway = make(config(wire.port))
        todo = jobs(chosen, ("chat", "anthropic", "bedrock"), ("stream", "streamed tools", "usage"))
        faults, _ = judged(todo, through_python(gateway, todo), wire)
        assert not {cell: what for cell, what in faults.items() if what}
        asked_of = len(todo) + sum(job.wanted.tools for job in todo)  # a tool's result is a request of its own
        records = eventually(lambda: found if len(found := gateway.records()) >= asked_of else None)
        assert len(records) == asked_of
        assert {record.outcome for record in records} == {"ok"}
    told = [record for record in records if not record.estimated]
    assert {(record.input, record.output) for record in told if record.finish_reason not in ("tool_calls", "tool_use")} == {
        (sdks.INPUT, sdks.OUTPUT)
    }


def test_the_page_has_every_cell() -> None:
    """A row for each provider below each front door, a tick or known reasons in each cell, and every reason in use."""
    page = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    letters = {chr(ord("a") + number): text for number, text in enumerate(REASONS.values())}
    assert dict(re.findall(r"^- \((\w)\) (.*)$", page, re.MULTILINE)) == letters
    sections = page.split("### ")[1:]
    assert [section.splitlines()[0] for section in sections] == list(FRONTS.values())
    used: set[str] = set()
    for section in sections:
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
        assert rows[0] == ["provider", "asked at", *FEATURES]
        assert [row[0] for row in rows[2:]] == [back.title for back in BACKS.values()]
        for row in rows[2:]:
            assert row[1]
            for cell in row[2:]:
                found = re.findall(r"\((\w)\)", cell)
                assert cell.startswith("✓") or found, (row[0], cell)
                assert set(found) <= set(letters), (row[0], cell)
                used |= set(found)
    assert used == set(letters)
