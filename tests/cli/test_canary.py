"""`aigw canary`, as a person and as a program sees it. What a server makes of it: tests/e2e/test_canary.py."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import CommandLine

WRITTEN = """\
# ours
[providers.demo]

[providers.gpu]
kind = "vllm"
base_url = "http://127.0.0.1:8000/v1"
models = ["qwen3-32b", "qwen3-8b", "bge-embed"]

[routes.chat]  # for everybody
targets = [{provider = "demo", model = "demo"}]
timeout = 60

[routes."gpt-*"]
targets = [{provider = "demo"}]
"""

START = ("canary", "start", "chat", "--to", "gpu/qwen3-32b")


@pytest.fixture
def written(aigw: CommandLine) -> CommandLine:
    aigw.config.write_text(WRITTEN)
    aigw.config.chmod(0o600)
    return aigw


def facts(aigw: CommandLine) -> dict[str, Any]:
    return json.loads(aigw("canary", "status", "chat", "--json").stdout)  # type: ignore[no-any-return]


def test_its_life(written: CommandLine) -> None:
    """Started, listed, shown, paused, resumed, promoted, aborted: each says what it did, and the history keeps it."""
    assert (written("canary").stdout, written("canary", "--json").stdout) == ("", "[]\n")
    done = written(*START)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith(
        "Started: chat -> gpu/qwen3-32b: 1, 5, 25, 50, 100 %, each for 30 min and 200 requests at least, sticky by consumer.\n"
    )
    assert "No server runs here" in done.stderr
    assert written("canary").stdout == (
        "route  to             share  state    requests  failed  old failed  reason\n"
        "chat   gpu/qwen3-32b    1 %  running         0       -           -\n"
    )
    shown = written("canary", "status").stdout
    assert (
        "\nshare:     1 %  (steps: 1, 5, 25, 50, 100)\nnext step: after 200 more requests, 30 min more, more certainty" in shown
    )
    for verb, state, said in (
        ("pause", "paused", "Paused at 1 %."),
        ("resume", "running", "Resumed at 1 %."),
        ("promote", "complete", "Promoted: all of chat goes to gpu/qwen3-32b, as long as this canary lives."),
        ("abort", "aborted", "Aborted; all traffic goes where the config says."),
    ):
        assert written("canary", verb, "chat", "--dry-run").returncode == 0
        done = written("canary", verb, "chat", "--yes") if verb in ("promote", "abort") else written("canary", verb, "chat")
        assert done.stderr.startswith(said), verb
        assert facts(written)["state"] == state
    assert written("canary").stdout == ""
    assert "aborted" in written("canary", "--all").stdout
    history = [event["what"] for event in facts(written)["history"]]
    assert history == ["started", "paused", "resumed", "complete", "aborted"]
    assert written("canary", "list", "--all", "--csv").stdout.splitlines() == [
        "route,to,share,state,requests,failed,old_requests,old_failed,reason",
        "chat,gpu/qwen3-32b,0.0,aborted,0,0,0,0,by the operator",
    ]


def test_what_cannot_be_done(written: CommandLine) -> None:
    """Two for one route, a verb that does not fit the state, a route without one."""
    assert written(*START).returncode == 0
    done = written(*START)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: chat has a canary already, to gpu/qwen3-32b (running): aigw canary abort chat ends it\n"
    assert "only a paused one can be resumed" in written("canary", "resume", "chat").stderr
    for verb in ("pause", "resume", "abort", "promote", "status"):
        done = written("canary", verb, "fast")
        assert (done.returncode, done.stderr) == (1, "error: 'fast' has no canary; 'aigw canary' lists what there is\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("chta", "--to", "gpu/qwen3-32b"), 1, "no route or model 'chta': did you mean chat?"),
        (("gpt-5", "--to", "gpu/qwen3-32b"), 1, "'gpt-5' is caught by the route 'gpt-*': start the canary on that one"),
        (("chat", "--to", "gpo/x"), 2, "no provider 'gpo': did you mean gpu?"),
        (("chat", "--to", "gpu/qwen3-23b"), 1, "gpu does not list a model 'qwen3-23b'; did you mean qwen3-32b"),
        (("chat", "--to", "gpu/"), 2, "expected a model behind the slash"),
        (("chat", "--to", "demo/demo"), 1, "all of 'chat' goes there already"),
        (("chat", "--to", "gpu/bge-embed"), 1, "embeddings never change their model"),
        (("chat", "--to", "gpu/qwen3-8b", "--steps", "5,1"), 2, "expected percentages that grow"),
        (("chat", "--to", "gpu/qwen3-8b", "--every", "soon"), 2, "is not a span of time"),
        (("chat", "--to", "gpu/qwen3-8b", "--sticky", "moon"), 2, "expected consumer, conversation or header:NAME"),
        (("chat", "--to", "gpu/qwen3-8b", "--rollback-on", "cots"), 2, "no reason 'cots': did you mean cost?"),
        (("chat", "--to", "gpu/qwen3-8b", "--min-samples", "0"), 2, "--min-samples"),
        (("chat", "--to", "gpu/qwen3-8b", "--shadow", "5%", "--spend", "much"), 2, "expected an amount like 1usd"),
        (("chat", "--to", "gpu/qwen3-8b", "--shadow", "5%"), 1, "what gpu/qwen3-8b costs is not known"),
    ],
)
def test_bad_input(written: CommandLine, arguments: tuple[str, ...], code: int, words: str) -> None:
    """Said with what was expected, or what was probably meant; nothing begins."""
    done = written("canary", "start", *arguments, COLUMNS="200")
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert written("canary", "--json", "--all").stdout == "[]\n"


def test_sure_of_an_unlisted_model(written: CommandLine) -> None:
    """--yes: lists of providers are not always whole."""
    done = written("canary", "start", "chat", "--to", "gpu/new", "--yes")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: gpu does not list a model 'new'")
    assert facts(written)["model"] == "new"


def test_a_shadow(written: CommandLine) -> None:
    """Mirrors a share, for so much; it cannot be promoted."""
    written.config.write_text(WRITTEN + '\n[prices."gpu/qwen3-8b"]\ninput = 1\noutput = 2\n')
    done = written("canary", "start", "chat", "--to", "gpu/qwen3-8b", "--shadow", "5%", "--spend", "2eur")
    assert (done.returncode, "the price of gpu/qwen3-8b is in USD" in done.stderr) == (1, True)
    done = written("canary", "start", "chat", "--to", "gpu/qwen3-8b", "--shadow", "5%", "--spend", "2usd")
    assert done.stderr.startswith("Started: mirror 5 % of chat to gpu/qwen3-8b, for 2 USD at most.\n")
    assert (facts(written)["spend"], facts(written)["share"]) == (2_000_000_000, 0)
    assert "5 %, 0 USD of 2 USD spent" in written("canary", "status").stdout
    assert "is only mirrored" in written("canary", "promote", "chat").stderr


def test_promote_into_the_config(written: CommandLine) -> None:
    """The line to write is data; --write writes it and keeps the rest of the file; then it is done."""
    assert written(*START).returncode == 0
    done = written("canary", "promote", "chat")
    assert done.stdout == '[routes.chat]\ntargets = [{provider = "gpu", model = "qwen3-32b"}]\n'
    assert written.config.read_text() == WRITTEN
    diff = written("canary", "promote", "chat", "--write", "--dry-run").stdout
    assert '+targets = [{provider = "gpu", model = "qwen3-32b"}]' in diff
    assert written.config.read_text() == WRITTEN
    assert written("canary", "promote", "chat", "--write").returncode == 0
    old = 'targets = [{provider = "demo", model = "demo"}]'
    assert written.config.read_text() == WRITTEN.replace(old, 'targets = [{provider = "gpu", model = "qwen3-32b"}]')
    assert facts(written)["state"] == "done"


def test_a_model_without_a_route(written: CommandLine) -> None:
    """A name that a provider lists can have a canary as well; written into the config it becomes a route."""
    assert written("canary", "start", "qwen3-8b", "--to", "demo/demo").returncode == 0
    assert written("canary", "promote", "qwen3-8b", "--write").returncode == 0
    assert written.config.read_text().endswith('[routes.qwen3-8b]\ntargets = [{provider = "demo", model = "demo"}]\n')


def test_in_a_narrow_terminal(written: CommandLine) -> None:
    """40 columns: what matters least is left out, and said so; `status` still fits its table."""
    assert written(*START).returncode == 0
    terminal = written.terminal("canary", columns=40)
    terminal.expect("not shown for want of width")
    terminal = written.terminal("canary", "abort", "chat", columns=40)
    terminal.expect_exact("End the canary of chat? [y/N]")
    terminal.sendline("n")
    terminal.expect("Nothing was changed")
    assert facts(written)["state"] == "running"
