"""Against a real server, and a provider that says what it is told to."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.e2e import far_side
from tests.e2e.far_side import DONE, END, STREAM_HEAD, USAGE, FarSide, answer, chunk, completion, delta, plays, stream
from tests.e2e.world import Gateway, eventually
from tests.loopback import Peer, Request

ANSWER = "This is the demo provider of aigw. It works offline and is no model: it only repeats what it is told. You said: "

Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def far() -> Iterator[FarSide]:
    with FarSide() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, far: FarSide) -> Iterator[Gateway]:
    config = "[providers.demo]\n"
    for name in ("evil", "broken", "slow", "thinking", "short", "remembers", "whole"):
        config += far_side.provider(name, far.url(name)) + far_side.route(name)
    config += far_side.provider("claude", far.url("claude"), kind="anthropic") + far_side.route("claude")
    config += far_side.provider("limited", far.url("limited"), kind="openai") + far_side.route("limited")
    running = Gateway(tmp_path_factory.mktemp("gateway"), config)
    running.start()
    yield running
    running.close()


def chat(gateway: Gateway, *arguments: str, stdin: str | None = None, **environment: str) -> Done:
    return subprocess.run(
        [sys.executable, "-m", "aigw", "chat", *arguments],
        env=gateway.environment | environment,
        cwd=gateway.folder,
        input=stdin or "",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def terminal(gateway: Gateway, *arguments: str, columns: int = 100, **environment: str) -> Any:
    world = {name: value for name, value in gateway.environment.items() if name != "COLUMNS"}
    return pexpect.spawn(
        sys.executable,
        ["-m", "aigw", "chat", *arguments],
        env=world | {"TERM": "xterm-256color", "LANG": "C.UTF-8"} | environment,  # type: ignore[arg-type]
        cwd=str(gateway.folder),
        dimensions=(40, columns),
        encoding="utf-8",
        timeout=15,
    )


def plain(text: str) -> str:
    """What a terminal shows, without its escapes."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "")


# ---- one question


def test_the_answer_alone_is_on_stdout(gateway: Gateway) -> None:
    """In a pipe: the answer, one line break, and silence on stderr; it works at once, with a key that nobody had to make."""
    done = chat(gateway, "-m", "demo", "Hello", "there")
    assert (done.returncode, done.stdout, done.stderr) == (0, ANSWER + "Hello there\n", "")
    found = eventually(gateway.records)
    assert [(one.consumer, one.outcome, one.stream) for one in found] == [("operator", "ok", True)]
    assert (gateway.data_dir / "operator.key").stat().st_mode & 0o777 == 0o600


def test_what_is_piped_stands_behind_the_prompt(gateway: Gateway) -> None:
    """`git diff | aigw chat "review this"`; without a prompt, or with -, the pipe is the prompt."""
    assert chat(gateway, "-m", "demo", "Review this", stdin="+ a\n- b\n").stdout == ANSWER + "Review this\n\n+ a\n- b\n"
    assert chat(gateway, "-m", "demo", stdin="only this\n").stdout == ANSWER + "only this\n"
    assert chat(gateway, "-m", "demo", "-", stdin="only this\n").stdout == ANSWER + "only this\n"


def test_nothing_to_ask(gateway: Gateway) -> None:
    """No prompt and an empty pipe: wrong usage. The same for a pipe that is no text."""
    done = chat(gateway, "-m", "demo", stdin=" \n")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nothing to ask" in done.stderr
    command = [sys.executable, "-m", "aigw", "chat", "-m", "demo", "x"]
    raw = subprocess.run(command, env=gateway.environment, input=b"\xff\xfe\x00", capture_output=True, timeout=30, check=False)
    assert raw.returncode == 2
    assert b"not UTF-8 text" in raw.stderr


def test_json_is_the_whole_answer(gateway: Gateway) -> None:
    """As the provider gave it, usage and all."""
    found = json.loads(chat(gateway, "-m", "demo", "--json", "Hello").stdout)
    assert found["choices"][0]["message"]["content"] == ANSWER + "Hello"
    assert found["usage"]["total_tokens"] > 0


def test_what_is_wished_for_arrives(gateway: Gateway, far: FarSide) -> None:
    """System prompt, limit, temperature, no stream: in the words of the provider that is asked."""
    far.scripts["whole"] = plays(answer(200, completion("It is whole.")))
    flags = ("--system", "Be brief.", "--max-tokens", "50", "--temperature", "0", "--no-stream")
    assert chat(gateway, "-m", "whole", *flags, "Hello").stdout == "It is whole.\n"
    asked = far.seen["whole"][-1].json
    assert asked["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert (asked["max_tokens"], asked["temperature"], asked["stream"]) == (50, 0.0, False)
    far.scripts["limited"] = plays(answer(200, completion("ok")))
    chat(gateway, "-m", "limited", *flags, "Hello")
    asked = far.seen["limited"][-1].json
    assert asked["max_completion_tokens"] == 50
    assert "max_tokens" not in asked


def event(kind: str, **more: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | more)}\n\n".encode()


CLAUDE = stream(
    event("message_start", message={"id": "m", "model": "m", "usage": {"input_tokens": 5, "output_tokens": 1}}),
    event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm"}),
    event("content_block_delta", index=1, delta={"type": "text_delta", "text": "Bon"}),
    event("content_block_delta", index=1, delta={"type": "text_delta", "text": "jour"}),
    event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 4}),
    event("message_stop"),
)


def test_a_model_that_speaks_anthropics_api_alone(gateway: Gateway, far: FarSide) -> None:
    """It is asked by that API at once: no failed attempt is left in the records."""
    far.scripts["claude"] = plays(CLAUDE)
    done = chat(gateway, "-m", "claude", "--system", "Be French.", "Hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Bonjour\n", "")
    asked = far.seen["claude"][-1].json
    assert (asked["system"], asked["max_tokens"]) == ("Be French.", 4096)
    assert asked["messages"] == [{"role": "user", "content": "Hello"}]
    found = eventually(lambda: gateway.records("requested_model = 'claude'"))
    assert [(one.operation, one.outcome) for one in found] == [("messages", "ok")]
    # by the address alone nothing is known of its models: the second try finds out
    assert chat(gateway, "-m", "claude", "--url", gateway.url, "Hello").stdout == "Bonjour\n"


def test_an_answer_has_no_power_over_the_terminal(gateway: Gateway, far: FarSide) -> None:
    """Newlines, tabs and every script pass; escapes, carriage returns and what turns text around do not."""
    said = "red \x1b[31m\x1b]0;title\x07\u202e\u2066 \x9b2J\rover\n\tnext 你好 👩‍👩‍👧 café\x7f"
    far.scripts["evil"] = plays(stream(delta(said[:6]), delta(said[6:]), USAGE, DONE))
    for done in (chat(gateway, "-m", "evil", "x"), chat(gateway, "-m", "evil", "x", NO_COLOR="1")):
        assert done.stdout == ("red \\x1b[31m\\x1b]0;title\\x07\\u202e\\u2066 \\x9b2Jover\n\tnext 你好 👩‍👩‍👧 café\\x7f\n")


def test_a_refusal_of_the_provider_is_one_line(gateway: Gateway, far: FarSide) -> None:
    """What happened, the code, the request id; nothing that looks like an answer."""
    error = {"error": {"message": "You have\nno \x1b[31mright", "type": "invalid_request_error"}}
    far.scripts["evil"] = plays(answer(400, error))
    done = chat(gateway, "-m", "evil", "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"error: The provider 'evil' answered 400: You have no .*right \(provider_rejected, req_\w+\)\n", done.stderr
    )
    assert "\x1b" not in done.stderr


def test_an_answer_that_breaks_off(gateway: Gateway, far: FarSide) -> None:
    """What came is shown, the failure is said, and the exit code is 1: by an error in the stream, or without one."""

    async def lost(peer: Peer, request: Request, number: int) -> None:
        await peer.send(STREAM_HEAD + chunk(delta("half of ")))
        peer.writer.close()

    far.scripts["broken"] = lost
    done = chat(gateway, "-m", "broken", "x")
    assert (done.returncode, done.stdout) == (1, "half of \n")
    assert re.fullmatch(r"error: .*\(provider_connection_lost, req_\w+\)\n", done.stderr)
    far.scripts["broken"] = plays(stream(delta("half of ")))
    done = chat(gateway, "-m", "broken", "x")
    assert (done.returncode, done.stdout) == (1, "half of \n")
    assert done.stderr.startswith("error: ")


def test_an_answer_that_was_cut_short(gateway: Gateway, far: FarSide) -> None:
    """The limit of tokens is named, for it looks like an end."""
    last = {"index": 0, "delta": {}, "finish_reason": "length"}
    cut = b"data: " + json.dumps({"id": "c", "model": "m", "choices": [last]}).encode() + b"\n\n"
    far.scripts["short"] = plays(stream(delta("Once upon a"), cut, DONE))
    done = chat(gateway, "-m", "short", "x")
    assert (done.returncode, done.stdout) == (0, "Once upon a\n")
    assert "--max-tokens" in done.stderr


# ---- which model, which gateway, which key


def test_a_model_must_be_named_where_there_is_no_default(gateway: Gateway) -> None:
    """It says how, with names that work; a name with a typo gets the nearest."""
    done = chat(gateway, "Hello")
    assert done.returncode == 1
    assert "no route 'default': choose a model with -m (" in done.stderr
    assert "evil, broken, slow" in done.stderr
    done = chat(gateway, "-m", "dmo", "Hello")
    assert done.returncode == 1
    assert 'did you mean "demo"?' in done.stderr
    assert "caller_model_not_found" in done.stderr


def test_the_default_route_is_the_default(tmp_path: Path) -> None:
    """[routes.default]; and where there is but one model, that one. Nobody listens: the command that would help."""
    config = '[providers.demo]\n[routes.default]\ntargets = [{provider = "demo", model = "demo"}]\n'
    gateway = Gateway(tmp_path / "one", config)
    gateway.write_config(config.replace("port = 0", "port = 1"))
    done = chat(gateway, "Hello")
    assert (done.returncode, done.stdout) == (1, "")
    assert "aigw serve" in done.stderr
    gateway.write_config(config)
    gateway.start()
    try:
        assert chat(gateway, "Hello").stdout == ANSWER + "Hello\n"
        gateway.write_config("[providers.demo]\n")
        eventually(lambda: "default" not in json.loads(gateway.ask(None, "/v1/models", method="GET", key=key(gateway)).body))
        assert chat(gateway, "Hello").stdout == ANSWER + "Hello\n"
    finally:
        gateway.close()


def key(gateway: Gateway) -> str:
    return (gateway.data_dir / "operator.key").read_text().strip()


def test_another_key_and_another_gateway(gateway: Gateway, tmp_path: Path) -> None:
    """--key takes a reference, a literal warns, a wrong one is told from a wrong address."""
    mine = gateway.create_key("mine")["key"]
    time.sleep(1)
    asked = chat(gateway, "-m", "demo", "--key", "env:MINE", "Hello", MINE=mine)
    assert (asked.returncode, asked.stderr) == (0, "")
    assert eventually(lambda: gateway.records("consumer = 'mine'"))
    asked = chat(gateway, "-m", "demo", "--key", mine, "Hello")
    assert asked.returncode == 0
    assert "env:NAME" in asked.stderr
    assert mine not in asked.stderr
    wrong = chat(gateway, "-m", "demo", "--key", "env:MINE", "Hello", MINE="sk-other")
    assert wrong.returncode == 1
    assert "policy_key_invalid" in wrong.stderr
    assert "--key env:NAME" in wrong.stderr
    assert chat(gateway, "--key", "env:NOT_SET", "x").returncode == 2
    elsewhere = {"HOME": str(tmp_path), "AIGW_DATA_DIR": str(tmp_path / "d"), "AIGW_CONFIG": "", "MINE": mine}
    far = chat(gateway, "-m", "demo", "--url", f"{gateway.url}/v1/", "--key", "env:MINE", "Hello", **elsewhere)
    assert far.stdout == ANSWER + "Hello\n"
    assert chat(gateway, "--url", "ftp://x", "x").returncode == 2


def test_it_does_without_aiohttp(gateway: Gateway) -> None:
    """What takes long to import is not imported, from the first line to the answer."""
    program = (
        "import sys\nfrom aigw.cli.main import main\n"
        "code = main(['chat', '-m', 'demo', 'Hello'])\n"
        "heavy = sorted({'aiohttp', 'rich', 'questionary', 'prometheus_client', 'uvloop'} & set(sys.modules))\n"
        "print(code, heavy)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=gateway.environment, input="", capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.splitlines() == [ANSWER + "Hello", "0 []"]


# ---- at a terminal


def test_a_terminal_sees_what_it_took(gateway: Gateway) -> None:
    """One dim line: model, provider, tokens, time to the first, time in all."""
    child = terminal(gateway, "-m", "demo", "Hello")
    child.expect(pexpect.EOF)
    lines = plain(child.before).rstrip().split("\n")
    assert lines[-2].endswith(ANSWER + "Hello")
    assert re.fullmatch(r"demo \(demo\), \d+ in \+ \d+ out tokens, first after [\d.]+ m?s, [\d.]+ m?s in all", lines[-1])
    assert "\x1b[2mdemo" in child.before
    child = terminal(gateway, "-m", "demo", "Hello", NO_COLOR="1")
    child.expect(pexpect.EOF)
    assert "\x1b[2m" not in child.before


def test_thinking_is_shown_and_taken_away(gateway: Gateway, far: FarSide) -> None:
    """While a model thinks the terminal says so; the answer stands where that stood."""
    thought = json.dumps({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}).encode()

    async def script(peer: Peer, request: Request, number: int) -> None:
        await peer.send(STREAM_HEAD + chunk(b"data: " + thought + b"\n\n"))
        await far_side.asyncio.sleep(0.3)
        await peer.send(chunk(delta("Done.")) + chunk(DONE) + END)

    far.scripts["thinking"] = script
    child = terminal(gateway, "-m", "thinking", "x")
    child.expect_exact("thinking...")
    child.expect_exact("\r\x1b[KDone.\r\n")
    child.expect(pexpect.EOF)


@pytest.fixture
def conversation(gateway: Gateway) -> Iterator[Callable[..., Any]]:
    children = []

    def begin(model: str, **environment: str) -> Any:
        child = terminal(gateway, "-m", model, **environment)
        children.append(child)
        child.expect_exact("> ")
        return child

    yield begin
    for child in children:
        child.close(force=True)


def ended(child: Any) -> int:
    child.expect(pexpect.EOF)
    child.close()
    return int(child.exitstatus)


def test_a_conversation_remembers(conversation: Callable[..., Any], far: FarSide) -> None:
    """Each question goes out with all that was said; /clear forgets; Ctrl-D leaves with 0."""
    far.scripts["remembers"] = plays(
        stream(delta("One."), USAGE, DONE), stream(delta("Two."), DONE), stream(delta("Three."), DONE)
    )
    child = conversation("remembers")
    for question, reply in (("first", "One."), ("second", "Two.")):
        child.sendline(question)
        child.expect_exact(reply)
        child.expect_exact("> ")
    said = [(one["role"], one["content"]) for one in far.seen["remembers"][-1].json["messages"]]
    assert said == [("user", "first"), ("assistant", "One."), ("user", "second")]
    child.sendline("/clear")
    child.expect_exact("> ")
    child.sendline('"""two')
    child.sendline('lines"""')
    child.expect_exact("Three.")
    child.expect_exact("> ")
    assert far.seen["remembers"][-1].json["messages"] == [{"role": "user", "content": "two\nlines"}]
    child.sendeof()
    assert ended(child) == 0


def test_ctrl_c_stops_the_answer_and_not_the_conversation(
    conversation: Callable[..., Any], gateway: Gateway, far: FarSide
) -> None:
    """The provider is hung up on; what was said so far is remembered; at the prompt Ctrl-C says how to leave."""

    async def endless(peer: Peer, request: Request, number: int) -> None:
        if number:
            await peer.send(stream(delta("Again."), DONE))
            return
        await peer.send(STREAM_HEAD)
        while True:
            await peer.send(chunk(delta("and on ")))
            await far_side.asyncio.sleep(0.02)

    far.scripts["slow"] = endless
    child = conversation("slow")
    child.sendline("go on")
    child.expect_exact("and on and on")
    child.sendintr()
    child.expect_exact("(stopped)")
    child.expect_exact("> ")
    assert eventually(lambda: far.closed["slow"])
    child.sendline("and?")
    child.expect_exact("Again.")
    messages = far.seen["slow"][-1].json["messages"]
    assert [one["role"] for one in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"].startswith("and on and on")
    child.expect_exact("> ")
    child.sendintr()
    child.expect_exact("Ctrl-D or /exit leaves")
    child.expect_exact("> ")
    child.sendline("/exit")
    assert ended(child) == 0


def test_an_error_leaves_the_conversation_as_it_was(conversation: Callable[..., Any], far: FarSide) -> None:
    """The question that got none is taken back."""
    far.scripts["broken"] = plays(answer(400, {"error": {"message": "too long"}}), stream(delta("Fine."), DONE))
    number = len(far.seen["broken"])
    far.scripts["broken"] = plays(
        *[answer(400, {"error": {"message": "too long"}})] * (number + 1), stream(delta("Fine."), DONE)
    )
    child = conversation("broken")
    child.sendline("long")
    child.expect_exact("too long")
    child.expect_exact("> ")
    child.sendline("short")
    child.expect_exact("Fine.")
    assert [one["content"] for one in far.seen["broken"][-1].json["messages"]] == ["short"]


def test_commands_of_the_conversation(conversation: Callable[..., Any]) -> None:
    """/model changes it and knows typos, /help lists, an unknown one is not sent to a model."""
    child = conversation("evil")
    child.sendline("/model dmo")
    child.expect_exact("no model 'dmo': did you mean demo?")
    child.sendline("/model demo")
    child.expect_exact("(model: demo)")
    child.sendline("/nonsense")
    child.expect_exact("no command /nonsense")
    child.sendline("/help")
    child.expect_exact("/clear")
    child.expect_exact("> ")
    child.sendline("Hello")
    child.expect_exact("You said: Hello")


def test_it_speaks_chinese(conversation: Callable[..., Any]) -> None:
    """By LANG; commands and codes stay as they are."""
    child = conversation("demo", LANG="zh_CN.UTF-8")
    child.sendline("/help")
    child.expect_exact("清空对话")
    child.sendline("/exit")
    assert ended(child) == 0


def test_a_signal_ends_one_question(gateway: Gateway, far: FarSide) -> None:
    """Ctrl-C while an answer comes: what came stays on stdout, the exit code is 130, and nobody sees a traceback."""

    async def endless(peer: Peer, request: Request, number: int) -> None:
        await peer.send(STREAM_HEAD)
        while True:
            await peer.send(chunk(delta("and on ")))
            await far_side.asyncio.sleep(0.02)

    far.scripts["slow"] = endless
    command = [sys.executable, "-m", "aigw", "chat", "-m", "slow", "x"]
    with subprocess.Popen(
        command,
        env=gateway.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert os.read(child.stdout.fileno(), 7) == b"and on "
        child.send_signal(signal.SIGINT)
        rest, talk = child.communicate(timeout=10)
    assert child.returncode == 130
    assert rest.endswith(b"\n")
    assert talk == b""
