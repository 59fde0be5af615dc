"""`aigw init` as people meet it: a real process on a real pseudo-terminal, providers on loopback. What it wrote is served, and
the calls that it printed are run as they are."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.cli.conftest import CommandLine
from tests.cli.emulated import KEY, MODELS, Asked, Emulated, Reply, guarded

WRONG = "sk-wrong-0123456789abcd"
DOWN, CTRL_C, CTRL_D, ESCAPE = "\x1b[B", "\x03", "\x04", "\x1b"


def chat(asked: Asked) -> Reply:
    if "messages" not in asked.json:
        return Reply(400, {"error": {"type": "invalid_request_error", "message": "messages: field required"}})
    message = {"role": "assistant", "content": f"You said {asked.json['messages'][-1]['content']}"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    value = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": asked.json["model"],
        "choices": [choice],
        "usage": usage,
    }
    if not asked.json.get("stream"):
        return Reply(200, value)
    chunk = {
        **value,
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}],
    }
    return Reply(200, f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode(), {"content-type": "text/event-stream"})


def messages(asked: Asked) -> Reply:
    if "max_tokens" not in asked.json or "messages" not in asked.json:
        return Reply(
            400, {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: field required"}}
        )
    content = [{"type": "text", "text": f"You said {asked.json['messages'][-1]['content']}"}]
    usage = {"input_tokens": 3, "output_tokens": 2}
    value = {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": asked.json["model"],
        "content": content,
        "usage": usage,
    }
    return Reply(200, {**value, "stop_reason": "end_turn", "stop_sequence": None})


@pytest.fixture(scope="module")
def far() -> Iterator[Emulated]:
    """A server that speaks both APIs, for who has the key."""
    refusal = Reply(
        401, {"error": {"message": "Incorrect API key provided", "type": "authentication_error", "code": "invalid_api_key"}}
    )
    answers = {
        "GET /v1/models": guarded(MODELS, refusal=refusal),
        "POST /v1/chat/completions": guarded(chat, refusal=refusal),
        "POST /v1/messages": guarded(messages, refusal=refusal),
    }
    with Emulated(answers) as server:
        yield server


@pytest.fixture
def fresh(aigw: CommandLine) -> CommandLine:
    """A home where nothing is set up."""
    aigw.config.unlink()
    del aigw.environment["AIGW_CONFIG"]
    aigw.config = aigw.folder / ".config" / "aigw" / "config.toml"
    return aigw


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def files(aigw: CommandLine) -> dict[str, bytes]:
    return {str(path.relative_to(aigw.folder)): path.read_bytes() for path in aigw.folder.rglob("*") if path.is_file()}


def plain(text: str) -> str:
    """What a terminal was sent, without its escape sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r", "", text)


def answered(terminal: Any, *script: tuple[str, str]) -> str:
    """Wait for each question, then press the keys. Returns all that was on the screen by then, without escapes."""
    seen = ""
    for question, keys in script:
        terminal.expect(question)
        seen += terminal.before + terminal.after
        time.sleep(0.05)  # the terminal is drawn to the end, and the keyboard is the question's
        terminal.send(keys)
    return plain(seen)


def ended(terminal: Any, code: int) -> str:
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == code, terminal.before
    return plain(terminal.before)


def own_server(far: Emulated, port: int) -> list[tuple[str, str]]:
    """Every question of a first run, with its answer."""
    return [
        (r"Which providers\?", "compatible\r"),
        ("A name for it", "\x15gpu\r"),
        ("Its base URL", f"\x15{far.root}\r"),
        (r"Key of gpu \(hidden", f"\x1b[200~ export K='{WRONG}'\n\x1b[201~\r"),
        ("What now", "\r"),
        (r"Key of gpu \(hidden", f"{KEY}\r"),
        (r"Another key for gpu\?", "\r"),
        ("Default model", "\r"),
        ("Port", f"\x15{port}\r"),
        ("for whom", "\r"),
        (r"Write this\?", "\r"),
    ]


class Serving:
    """`aigw serve` for as long as the block lasts."""

    def __init__(self, aigw: CommandLine, port: int) -> None:
        self._aigw, self._port = aigw, port

    def __enter__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "aigw", "serve"],
            env=self._aigw.environment,
            cwd=self._aigw.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                assert self._process.poll() is None, self._process.communicate()[1]
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                return

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        _, said = self._process.communicate(timeout=20)
        assert self._process.returncode == 0, said
        assert "Traceback" not in said


def run_snippets(text: str, environment: dict[str, str]) -> list[str]:
    """Run what was printed, as it is: the part under each "# title" by the program it is for. Returns what each said."""
    said = []
    for part in re.split(r"(?m)^(?=# )", text):
        if not part.strip():
            continue
        title, _, code = part.partition("\n")
        command = ["bash", "-ec", code] if title == "# curl" else [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (title, done.stderr)
        said.append(done.stdout)
    return said


def test_from_nothing_to_the_first_calls(fresh: CommandLine, far: Emulated) -> None:
    """A wrong key, then the right one; the config is valid, private, commented; the printed calls are answered."""
    port = free_port()
    terminal = fresh.terminal("init", columns=300)
    seen = answered(terminal, *own_server(far, port))
    shown = ended(terminal, 0)
    assert "wrong key: 401" in seen
    assert "...cdef: the key is good, 2 models" in seen
    assert KEY not in seen + shown
    assert WRONG not in seen + shown
    text = fresh.config.read_text()
    assert text.startswith("# The config of aigw")
    assert KEY not in text
    key_file = fresh.config.parent / "keys" / "gpu"
    assert key_file.read_text() == f"{KEY}\n"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (fresh.config, key_file, fresh.config.parent)] == [
        0o600,
        0o600,
        0o700,
    ]
    checked = fresh("config", "check")
    assert checked.returncode == 0, checked.stderr
    assert len(list(key_file.parent.iterdir())) == 1
    snippets = shown[shown.index("# curl") : shown.index("-- Next: aigw serve")]
    assert f"http://127.0.0.1:{port}/v1/chat/completions" in snippets
    with Serving(fresh, port):
        said = run_snippets(
            snippets, {"PATH": os.environ["PATH"], "HOME": str(fresh.folder), "ANTHROPIC_API_KEY": "sk-ant-not-this"}
        )
    assert json.loads(said[0])["choices"][0]["message"]["content"] == "You said Hello"
    assert said[1:] == ["You said Hello\n", "You said Hello\n"]
    rows = json.loads(fresh("stats", "--by", "consumer", "--json").stdout)["rows"]
    assert [row["requests"] for row in rows] == [3]
    assert "me" in rows[0]["consumer"]


def test_a_second_run_edits(fresh: CommandLine, far: Emulated) -> None:
    """What is there is proposed, and Enter keeps it, to the byte; a second key goes beside the first, comments stay."""
    fresh.config.parent.mkdir(parents=True)
    before = (
        f'# ours\n[server]\nport = {free_port()} # why not\n\n[providers.gpu] # the big one\nkind = "openai-compatible"\n'
        f'base_url = "{far.url}"\nkeys = ["env:GPU_KEY"]\n\n'
        '[routes.default]\ntargets = [{provider = "gpu", model = "small-1"}]\n'
    )
    fresh.config.write_text(before)
    fresh.config.chmod(0o600)
    fresh.environment["GPU_KEY"] = KEY
    terminal = fresh.terminal("init")
    answered(
        terminal,
        (r"Which providers\?", "\r"),
        ("Default model", "\r"),
        ("Port", "\r"),
        ("for whom", "\r"),
        (r"Write this\?", "\r"),
    )
    ended(terminal, 0)
    assert fresh.config.read_text() == before
    terminal = fresh.terminal("init")
    answered(
        terminal,
        (r"Which providers\?", "gpu\r"),
        ("What about it", "\r"),
        ("Key of gpu", f"{KEY}\r"),
        ("Another key", "\r"),
        ("Default model", "large\r"),
        ("Port", "\r"),
        ("There are consumer keys already", "\r"),
        (r"Write this\?", "\r"),
    )
    assert "sk-aigw-..." in ended(terminal, 0)
    after = fresh.config.read_text()
    assert after == before.replace('["env:GPU_KEY"]', '["env:GPU_KEY", "file:~/.config/aigw/keys/gpu"]').replace(
        "small-1", "large-1"
    )


def test_in_chinese(fresh: CommandLine, far: Emulated) -> None:
    """By LANG, from the first question to the comments of the config; a provider is found by its Chinese name."""
    terminal = fresh.terminal("init", LANG="zh_CN.UTF-8", columns=200)
    terminal.expect("使用哪些服务商？")
    terminal.send("演示\r")
    terminal.expect("默认模型")
    terminal.send("\r")
    answered(terminal, ("端口", f"\x15{free_port()}\r"), ("给谁用", "\x15小明\r"), ("写入以上设置", "y\r"))
    shown = ended(terminal, 0)
    assert "下一步: aigw serve" in shown
    assert "已为 小明 创建密钥" in shown
    assert "# aigw 的配置" in fresh.config.read_text()
    assert fresh("config", "check").returncode == 0
    assert json.loads(fresh("keys", "--json").stdout)[0]["name"] == "小明"


def test_forty_columns_and_no_locale(fresh: CommandLine) -> None:
    """LANG=C draws in ASCII alone, and no line is wider than the terminal where it is drawn."""
    terminal = fresh.terminal("init", columns=40, LANG="C", NO_COLOR="1")
    terminal.expect(r"Which providers\?")
    terminal.send("demo\r")
    seen = answered(
        terminal, ("Default model", "\r"), ("Port", f"\x15{free_port()}\r"), ("for whom", "\r"), (r"Write this\?", "\r")
    )
    shown = ended(terminal, 0)
    assert (seen + shown).isascii()
    assert "sk-aigw-" in shown


def test_a_terminal_that_cannot_draw(fresh: CommandLine) -> None:
    """TERM=dumb is asked line by line, without one escape sequence."""
    terminal = fresh.terminal("init", TERM="dumb")
    terminal.expect(r"numbers or names, commas between \[")
    terminal.sendline("demo, openai")
    terminal.expect("Key of openai")
    time.sleep(0.1)
    terminal.sendline("")
    terminal.expect("number or name")
    terminal.sendline("")
    terminal.expect("Port")
    terminal.sendline(str(free_port()))
    terminal.expect("for whom")
    terminal.sendline("")
    terminal.expect("Write this")
    terminal.sendline("y")
    shown = ended(terminal, 0)
    assert "\x1b" not in shown
    assert "[providers.demo]" in fresh.config.read_text()


def test_a_check_that_hangs_is_skipped(fresh: CommandLine) -> None:
    """Esc ends the waiting and nothing else."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        terminal = fresh.terminal("init")
        answered(
            terminal,
            (r"Which providers\?", "compatible\r"),
            ("A name for it", "\r"),
            ("Its base URL", f"\x15http://127.0.0.1:{silent.getsockname()[1]}/v1\r"),
            ("Key of local", f"{KEY}\r"),
            ("Asking local", ESCAPE),
            ("Not checked", ""),
            (r"Another key for local\?", CTRL_C),
        )
        assert "Nothing was written" in ended(terminal, 130)


@pytest.mark.long
@pytest.mark.parametrize("keys", [CTRL_C, CTRL_D])
@pytest.mark.parametrize("stop", range(11))
def test_ended_at_every_question(fresh: CommandLine, far: Emulated, stop: int, keys: str) -> None:
    """Nothing is written, not even a directory; 130 for Ctrl-C."""
    script = own_server(far, free_port())
    assert len(script) == 11
    terminal = fresh.terminal("init")
    answered(terminal, *script[:stop], (script[stop][0], keys))
    assert "Nothing was written" in ended(terminal, 130 if keys == CTRL_C else 1)
    assert list(fresh.folder.iterdir()) == []


@pytest.mark.parametrize(("keys", "code"), [(CTRL_C, 130), (CTRL_D, 1), ("n\r", 1)])
def test_ended_at_the_last_question(fresh: CommandLine, keys: str, code: int) -> None:
    """With everything answered, it is as if nothing had been."""
    terminal = fresh.terminal("init")
    demo = [(r"Which providers\?", "demo\r"), ("Default model", "\r"), ("Port", f"\x15{free_port()}\r"), ("for whom", "\r")]
    answered(terminal, *demo, (r"Write this\?", keys))
    assert "Nothing was written" in ended(terminal, code)
    assert list(fresh.folder.iterdir()) == []


def test_ctrl_c_at_the_first_question(fresh: CommandLine) -> None:
    """As above."""
    terminal = fresh.terminal("init")
    answered(terminal, (r"Which providers\?", CTRL_C))
    assert "Nothing was written" in ended(terminal, 130)
    assert list(fresh.folder.iterdir()) == []


# ---- without questions


def test_without_questions(fresh: CommandLine, far: Emulated) -> None:
    """Keys from the environment, a file and standard input; the answer in JSON is all a script needs."""
    port = free_port()
    (fresh.folder / "k.txt").write_text(f"{KEY}\n")
    (fresh.folder / "k.txt").chmod(0o600)
    done = fresh(
        *("init", "--yes", "--json", "--port", str(port), "--consumer", "ci"),
        *("--provider", "openai=env:OPENAI_API_KEY", "--base-url", f"openai={far.url}"),
        *("--provider", "deepseek=file:k.txt", "--base-url", f"deepseek={far.url}", "--fallback", "deepseek/large-1"),
        OPENAI_API_KEY=KEY,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["checks"][0] | {"detail": ""} == {
        "provider": "openai",
        "key": "env:OPENAI_API_KEY",
        "verdict": "good",
        "detail": "",
    }
    assert [one["keys"] for one in found["providers"]] == [["env:OPENAI_API_KEY"], ["file:~/k.txt"]]
    assert (found["default_model"], found["fallback"], found["port"]) == ("openai/small-1", "deepseek/large-1", port)
    assert KEY not in done.stdout + done.stderr
    assert found["consumer"] == "ci"
    fresh.environment["OPENAI_API_KEY"] = KEY
    with Serving(fresh, port):
        said = run_snippets(f"# curl\n{found['snippets']['curl']}\n", {"PATH": os.environ["PATH"]})
    assert json.loads(said[0])["model"] == "small-1"


def test_from_the_environment(fresh: CommandLine) -> None:
    """Every variable that is set, --no-check: nobody is asked. A second time there is nothing to add, and nothing changes."""
    flags = ("init", "--yes", "--from-env", "--no-check")
    keys = {"OPENAI_API_KEY": "sk-a", "ANTHROPIC_API_KEY": "sk-b"}
    done = fresh(*flags, **keys)
    assert done.returncode == 0, done.stderr
    text = fresh.config.read_text()
    assert '[providers.openai]\nkeys = ["env:OPENAI_API_KEY"]' in text
    assert '[providers.anthropic]\nkeys = ["env:ANTHROPIC_API_KEY"]' in text
    again = fresh(*flags, **keys)
    assert again.returncode == 0, again.stderr
    assert "configured already" in again.stderr
    assert fresh.config.read_text() == text
    assert len(json.loads(fresh("keys", "--json", **keys).stdout)) == 1


def test_a_wrong_key_writes_nothing(fresh: CommandLine, far: Emulated) -> None:
    """Exit code 1, the verdict, and what to do."""
    done = fresh("init", "--yes", "--provider", "openai=env:K", "--base-url", f"openai={far.url}", K=WRONG)
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: openai (env:K): wrong key: 401" in done.stderr
    assert "--no-check" in done.stderr
    assert list(fresh.folder.iterdir()) == []


def test_a_dry_run(fresh: CommandLine) -> None:
    """Shows the file, later the difference; writes nothing."""
    done = fresh("init", "--yes", "--demo", "--port", "22341", "--dry-run")
    assert done.returncode == 0
    assert "[providers.demo]" in done.stdout
    assert list(fresh.folder.iterdir()) == []
    fresh("init", "--yes", "--demo", "--port", "22341")
    before = files(fresh)
    done = fresh("init", "--yes", "--port", "22342", "--dry-run")
    assert "-port = 22341\n+port = 22342\n" in done.stdout
    assert {name: text for name, text in files(fresh).items() if "data" not in name} == {
        name: text for name, text in before.items() if "data" not in name
    }


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "aigw init --yes --from-env"),
        (("--yes",), "--yes needs to know what"),
        (("--yes", "--provider", "opnai=env:X"), "did you mean openai"),
        (("--yes", "--demo", "--consumer", "operator"), "stands for the commands of this machine"),
        (("--yes", "--demo", "--port", "99999"), "99999"),
    ],
)
def test_wrong_usage(fresh: CommandLine, flags: tuple[str, ...], said: str) -> None:
    """Exit code 2, and what to write instead; without a terminal it does not ask."""
    done = fresh("init", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())
    assert list(fresh.folder.iterdir()) == []


def test_a_config_with_mistakes_is_not_touched(aigw: CommandLine) -> None:
    """File and line are said, before any question."""
    aigw.config.write_text("[server]\nport = 8080\n[providers.openai\n")
    terminal = aigw.terminal("init")
    assert "config.toml:3" in ended(terminal, 2)
    aigw.config.write_text("[server]\nprot = 8080\n")
    done = aigw("init", "--yes", "--demo")
    assert done.returncode == 2
    assert "config.toml:2" in done.stderr
    assert aigw.config.read_text() == "[server]\nprot = 8080\n"


def test_a_full_disk(fresh: CommandLine) -> None:
    """No file may grow beyond a few bytes: the error says so, and nothing stays behind."""

    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))

    done = subprocess.run(
        [sys.executable, "-m", "aigw", "init", "--yes", "--demo", "--provider", "groq=-", "--no-check"],
        env=fresh.environment | {"PYTHONDONTWRITEBYTECODE": "1"},
        cwd=fresh.folder,
        input=f"{KEY}\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=small,
    )
    assert done.returncode in (1, 2)
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(fresh.folder.iterdir()) == []


def test_a_running_server_takes_it_over(fresh: CommandLine) -> None:
    """The next command is not `serve` then; its own port is not in the way."""
    port = free_port()
    assert fresh("init", "--yes", "--demo", "--port", str(port)).returncode == 0
    with Serving(fresh, port):
        done = fresh("init", "--yes", "--port", str(port), "--provider", "ollama", "--no-check")
        assert done.returncode == 0, done.stderr
        assert "has taken it over" in done.stderr
        assert "Next: aigw serve" not in done.stderr


def test_help_and_speed(fresh: CommandLine) -> None:
    """It has examples, and imports no aiohttp."""
    done = fresh("init", "--help")
    assert "aigw init --yes --from-env" in done.stdout
    code = (
        "import sys, aigw.cli.main as m; m.main(['init', '--yes', '--demo', '--dry-run']); assert 'aiohttp' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=fresh.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_home_is_said_shortly(fresh: CommandLine) -> None:
    """Paths below HOME begin with ~, in references too."""
    done = fresh("init", "--yes", "--provider", "groq=gsk_0123456789abcdef0123", "--no-check")
    assert done.returncode == 0, done.stderr
    assert "Wrote ~/.config/aigw/keys/groq" in done.stderr
    assert "gsk_" not in done.stderr
    assert Path(fresh.folder, ".config/aigw/keys/groq").exists()
