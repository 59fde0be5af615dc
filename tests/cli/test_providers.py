"""`aigw providers` as it is typed: real processes, real config files, providers on loopback."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from tests.cli.conftest import CommandLine
from tests.cli.emulated import BUSY, KEY, MODELS, NO_MONEY, PAGE, Asked, Emulated, Reply, guarded

OTHER = "sk-other-0123456789abcdef"


def table(name: str, url: str, *keys: str, kind: str = "openai-compatible", more: str = "") -> str:
    return f'[providers.{name}]\nkind = "{kind}"\nbase_url = "{url}"\nkeys = {json.dumps(list(keys))}\n{more}\n'


def read(aigw: CommandLine) -> dict[str, Any]:
    return tomllib.loads(aigw.config.read_text())


def test_a_bare_noun_lists(aigw: CommandLine) -> None:
    """Nothing configured: the next two commands. Then kind, address, keys, models and what is taken from whom."""
    done = aigw("providers")
    assert (done.returncode, done.stdout) == (0, "")
    assert "providers add NAME" in done.stderr
    aigw.config.write_text(
        '[providers.openai]\nkeys = ["env:OPENAI_KEY"]\n[providers.azure]\nkeys = ["sk-azure-0123456789"]\n'
        'settings = {resource = "r"}\n' + table("gpu", "http://gpu:8000/v1").replace("keys = []\n", 'models = ["own-1"]\n')
    )
    done = aigw("providers")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "provider  kind               base url                    keys  models  shadows",
        "openai    openai             https://api.openai.com/v1      1       -",
        "azure     azure              https://r.openai.azure.com     1       -",
        "gpu       openai-compatible  http://gpu:8000/v1             0       1",
    ]
    assert "OPENAI_KEY is not set" in done.stderr
    facts = json.loads(aigw("providers", "--json", OPENAI_KEY=KEY).stdout)
    assert [fact["name"] for fact in facts] == ["openai", "azure", "gpu"]
    assert facts[0]["keys"] == [
        {
            "provider": "openai",
            "label": "openai#1",
            "reference": "env:OPENAI_KEY",
            "ends_in": KEY[-4:],
            "problem": "",
            "account": "",
        }
    ]
    everything = aigw("providers", OPENAI_KEY=KEY).stdout + json.dumps(facts) + aigw("providers", "--csv").stdout
    assert KEY not in everything
    assert "sk-azure" not in everything


def test_what_is_shadowed_is_shown(aigw: CommandLine) -> None:
    """Of two that claim a name the first has it; both say so."""
    aigw.config.write_text('[providers.moonshot]\nkeys = ["sk-a"]\n[providers.moonshot-intl]\nkeys = ["sk-b"]\n')
    assert "kimi-" in aigw("providers").stdout.splitlines()[1]
    first, second = json.loads(aigw("providers", "--json").stdout)
    assert {"claim": "kimi-*", "kind": "prefix", "provider": "moonshot-intl"} in first["shadows"]
    assert {"claim": "kimi-*", "kind": "prefix", "provider": "moonshot"} in second["shadowed"]


def test_the_catalog_is_searched_in_both_languages(aigw: CommandLine) -> None:
    """By id, English or Chinese name, variable; a set variable is marked; a config with mistakes does not matter."""
    aigw.config.write_text("nonsense")
    found = aigw("providers", "list", "--all", "通义").stdout
    assert "dashscope" in found
    done = aigw("providers", "list", "--all", "deepseek", DEEPSEEK_API_KEY="sk-x")
    assert "DEEPSEEK_API_KEY (set)" in done.stdout
    assert "sk-x" not in done.stdout + done.stderr
    assert "深度求索" in aigw("providers", "list", "--all", "deepseek", LANG="zh_CN.UTF-8").stdout
    assert len(json.loads(aigw("providers", "list", "--all", "--json").stdout)) > 100
    nothing = aigw("providers", "list", "--all", "opnai")
    assert nothing.returncode == 0
    assert "openai" in nothing.stderr


def test_show_says_all_that_is_known(aigw: CommandLine) -> None:
    """The config's part, the catalog's part, quirks in words, evidence; a slip is put right."""
    aigw.config.write_text(f'[providers.work]\nkind = "deepseek"\nkeys = ["{KEY}"]\n')
    shown = aigw("providers", "show", "work").stdout
    assert f"work#1 *** ...{KEY[-4:]}" in shown
    assert "https://api.deepseek.com/anthropic" in shown
    assert "reasoning_content" in shown
    assert "read in several current sources" in shown
    assert KEY not in shown
    facts = json.loads(aigw("providers", "show", "zhipu", "--json").stdout)
    assert facts["configured"] is None
    assert facts["catalog"]["twin"] == "zai"
    wrong = aigw("providers", "show", "zhipo")
    assert wrong.returncode == 1
    assert "did you mean zhipu" in wrong.stderr


def test_every_key_is_tested_live(aigw: CommandLine) -> None:
    """Each verdict in its row, exit code 1 because one is wrong, what to do about it; never a key."""
    with Emulated({"GET /v1/models": guarded(MODELS), "GET /m/v1/models": NO_MONEY, "GET /b/v1/models": BUSY}) as far:
        good = table("good", far.url, KEY)
        aigw.config.write_text(good)
        done = aigw("providers", "test")
        assert done.returncode == 0, done.stderr
        aigw.config.write_text(
            good
            + table("pool", far.url, KEY, OTHER)
            + table("poor", f"{far.root}/m/v1", KEY)
            + table("busy", f"{far.root}/b/v1", KEY)
            + table("lost", f"{far.root}/x/v1", KEY)
            + table("unset", far.url, "env:NO_SUCH_KEY")
        )
        done = aigw("providers", "test")
        rows = json.loads(aigw("providers", "test", "--json").stdout)
        one = aigw("providers", "test", "good")
        csv = aigw("providers", "test", "busy", "--csv")
    assert {row["label"]: row["verdict"] for row in rows} == {
        "good#1": "good",
        "pool#1": "good",
        "pool#2": "wrong_key",
        "poor#1": "no_credit",
        "busy#1": "limited",
        "lost#1": "wrong_url",
        "unset#1": "unknown",
    }
    assert (done.returncode, one.returncode, csv.returncode) == (1, 0, 0)
    for words in ("good", "wrong key", "no credit", "good, limited now", "wrong URL", "could not check"):
        assert words in done.stdout
    assert "aigw providers keys rotate pool pool#2 --key -" in done.stderr
    assert KEY not in done.stdout + done.stderr
    assert OTHER not in done.stdout + done.stderr


def test_a_model_is_tried_for_real(aigw: CommandLine) -> None:
    """--model sends one request with each key; a model that is not there is a failure."""
    chat = Reply(200, {"choices": [{"message": {"content": "hello"}}], "usage": {"prompt_tokens": 4}})

    def answer(asked: Any) -> Reply:
        return chat if asked.json["model"] == "m-1" else Reply(404, {"error": {"code": "model_not_found", "message": "no"}})

    with Emulated({"POST /v1/chat/completions": guarded(answer)}) as far:
        aigw.config.write_text(table("gpu", far.url, KEY))
        assert aigw("providers", "test", "gpu", "--model", "m-1").returncode == 0
        done = aigw("providers", "test", "gpu", "--model", "m-2")
        assert done.returncode == 1
        assert "model_not_found" in done.stdout
    assert aigw("providers", "test", "--model", "m-1").returncode == 2


def _talks(asked: Asked) -> Reply:
    if not asked.json.get("stream"):
        return Reply(200, {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}})
    chunk = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}
    text = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
    return Reply(200, text.encode(), {"content-type": "text/event-stream"})


def test_each_kind_of_call_is_tried(aigw: CommandLine) -> None:
    """Models, a word, a stream, vectors: each with its verdict and time; what is wrong with one says nothing of the others."""
    listed = Reply(200, {"object": "list", "data": [{"id": "text-embed-1"}, {"id": "m-1"}]})
    with Emulated({"GET /v1/models": guarded(listed), "POST /v1/chat/completions": guarded(_talks)}) as provider:
        aigw.config.write_text(table("gpu", provider.url, KEY))
        done = aigw("providers", "test", "gpu", "--calls", "--json")
        shown = aigw("providers", "test", "gpu", "--calls").stdout
    rows = {row["call"]: row for row in json.loads(done.stdout)}
    assert [(name, row["verdict"]) for name, row in rows.items()] == [
        ("models", "good"),
        ("chat", "good"),
        ("stream", "good"),
        ("embeddings", "unknown"),
    ]
    assert rows["chat"]["detail"] == "m-1; 3 + 0 tokens"
    assert all(row["seconds"] >= 0 for row in rows.values())
    assert done.returncode == 1, "one of them does not work"
    assert "stream" in shown
    asked = [one for one in provider.asked if one.path == "/v1/chat/completions"]
    assert all(one.json["max_tokens"] == 16 for one in asked), "as cheap as can be"


def test_a_wrong_key_is_tried_no_further(aigw: CommandLine) -> None:
    """The list of models tells: nothing else is asked."""
    with Emulated({"GET /v1/models": guarded(MODELS)}) as provider:
        aigw.config.write_text(table("gpu", provider.url, "sk-wrong-000000"))
        done = aigw("providers", "test", "gpu", "--calls", "--json")
    assert [(row["call"], row["verdict"]) for row in json.loads(done.stdout)] == [("key", "wrong_key")]
    assert done.returncode == 1


def test_a_page_is_no_provider(aigw: CommandLine) -> None:
    """A web server at the address is a wrong address."""
    with Emulated(otherwise=PAGE) as far:
        aigw.config.write_text(table("gpu", far.url, KEY))
        done = aigw("providers", "test")
    assert done.returncode == 1
    assert "wrong URL" in done.stdout
    assert "Welcome to nginx" in done.stdout


ROUTED = """# mine
[providers.a]
kind = "vllm"
base_url = "http://a/v1"

[providers.b]  # the second
kind = "vllm"
base_url = "http://b/v1"

[routes.both]
targets = [{provider = "a", model = "m"}, {provider = "b", model = "m"}]  # shared
fallback = [{provider = "a"}]

[routes.only]
targets = [{provider = "a", model = "m"}]
"""


def test_remove_takes_care_of_routes(aigw: CommandLine) -> None:
    """What names it is said; nothing happens without a yes; comments stay; what is left is a config."""
    aigw.config.write_text(ROUTED)
    done = aigw("providers", "remove", "a")
    assert done.returncode == 1
    assert "route only has no other target" in done.stderr
    assert aigw.config.read_text() == ROUTED
    dry = aigw("providers", "remove", "a", "--dry-run")
    assert dry.returncode == 0
    assert "-[providers.a]" in dry.stdout
    assert aigw.config.read_text() == ROUTED
    done = aigw("providers", "remove", "a", "--yes")
    assert done.returncode == 0, done.stderr
    assert read(aigw) == {
        "providers": {"b": {"kind": "vllm", "base_url": "http://b/v1"}},
        "routes": {"both": {"targets": [{"provider": "b", "model": "m"}]}},
    }
    assert "# the second" in aigw.config.read_text()
    assert aigw("config", "check").returncode == 0
    assert aigw("providers", "remove", "a").returncode == 1


def test_remove_asks_on_a_terminal(aigw: CommandLine) -> None:
    """Only a plain yes is one."""
    aigw.config.write_text(ROUTED)
    terminal = aigw.terminal("providers", "remove", "b")
    terminal.expect("Remove b")
    terminal.sendline("")
    terminal.expect("Nothing was changed")
    terminal.wait()
    assert terminal.exitstatus == 1
    assert aigw.config.read_text() == ROUTED


def test_narrow_and_plain_terminals(aigw: CommandLine) -> None:
    """40 columns, no colour, LANG=C: whole lines and no traceback."""
    aigw.config.write_text(ROUTED)
    terminal = aigw.terminal("providers", "list", "--all", "deep", columns=40, NO_COLOR="1", LANG="C")
    terminal.wait()
    text = terminal.read()
    assert "deepseek" in text
    assert "Traceback" not in text
    assert max(len(row) for row in text.splitlines() if "deepseek" in row) <= 40


def test_help_has_examples(aigw: CommandLine) -> None:
    """Every command shows how it is used."""
    for words in ((), ("list",), ("show",), ("add",), ("test",), ("remove",), ("keys",), ("keys", "add"), ("keys", "rotate")):
        done = aigw("providers", *words, "--help")
        assert done.returncode == 0
        assert "Examples:" in done.stdout, words
