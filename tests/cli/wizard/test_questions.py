"""The questions: which are asked, and what plan they make. They write nothing, so ending them changes nothing."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from aigw.cli.locations import Locations
from aigw.cli.wizard.plan import Key, Model, Plan
from aigw.cli.wizard.questions import Interview
from aigw.config.edit import ConfigFile
from aigw.providers import catalog
from tests.cli.emulated import KEY, MODELS, NO_MONEY, PAGE, Answer, Emulated, guarded
from tests.cli.wizard.scripted import SKIP, Scripted

OTHER = "sk-other-0123456789abcdef"


class Wizard:
    """One interview on a config of its own."""

    def __init__(self, folder: Path, config: str = "") -> None:
        self.path = folder / "config.toml"
        if config:
            self.path.write_text(config)
        self.where = Locations()
        self.where.config, self.where.data_dir = str(self.path), str(folder / "data")
        self.folder = folder

    def ask(
        self,
        part: str,
        *script: tuple[str, Any],
        environ: Mapping[str, str] | None = None,
        plan: Plan | None = None,
        **how: Any,
    ) -> tuple[Plan, Scripted]:
        """Have one *part* of the interview; the whole script must be asked for, and nothing more."""
        before = sorted(self.folder.rglob("*"))
        plan, asker = plan or Plan(self.path), Scripted(*script)
        check = how.pop("check", True)
        interview = Interview(asker, plan, ConfigFile.read(self.path), self.where, environ or {}, check=check)
        getattr(interview, part)(**how)
        assert asker.script == [], asker.asked
        assert sorted(self.folder.rglob("*")) == before
        return plan, asker


@pytest.fixture
def wizard(tmp_path: Path) -> Wizard:
    return Wizard(tmp_path)


def at(url: str) -> str:
    return f'[providers.openai]\nbase_url = "{url}"\nkeys = ["env:FIRST"]\n'


WHICH, WHAT, NOW = "Which providers?", "What about it?", "What now?"


# ---- providers


def test_variables_that_are_set_come_first_and_are_offered(wizard: Wizard) -> None:
    """`env:NAME` for them: no secret is asked."""
    plan, asker = wizard.ask(
        "providers",
        (WHICH, ["deepseek"]),
        ("Key of deepseek", "env:DEEPSEEK_API_KEY"),
        ("Another key", None),
        environ={"DEEPSEEK_API_KEY": "sk-x"},
        check=False,
    )
    assert [(one.name, one.keys) for one in plan.providers] == [("deepseek", [Key("env:DEEPSEEK_API_KEY")])]
    first = asker.choices[WHICH][0]
    assert (first.value, first.note) == ("deepseek", "DEEPSEEK_API_KEY is set")
    assert "深度求索" in first.words


def test_every_row_is_offered(wizard: Wizard) -> None:
    """The whole catalog, what is the operator's own last."""
    _, asker = wizard.ask("providers", (WHICH, ["demo"]))
    values = [choice.value for choice in asker.choices[WHICH]]
    assert {"openai", "anthropic", "ollama", "demo"} <= set(values)
    assert set(catalog.ids()) <= set(values)
    assert set(values[-2:]) == {"openai-compatible", "generic"}


def test_several_pasted_keys(wizard: Wizard) -> None:
    """Cleaned; one that was pasted twice is one; an empty one ends it."""
    plan, asker = wizard.ask(
        "providers",
        (WHICH, ["groq", "mistral"]),
        ("Key of groq", f'  export GROQ_API_KEY="{KEY}"\n'),
        ("Another key", True),
        ("Key of groq", KEY),
        ("Key of groq", "two words"),
        ("Key of groq", OTHER),
        ("Another key", False),
        ("Key of mistral", ""),
        check=False,
    )
    assert [(one.name, one.keys) for one in plan.providers] == [("groq", [Key(secret=KEY), Key(secret=OTHER)])]
    assert len(asker.complaints) == 1
    assert "two words" not in asker.complaints[0]


@pytest.mark.parametrize(("pasted", "whose"), [("sk-ant-api03-" + "aB3" * 10, "anthropic"), ("sk-aigw-k-" + "yZ" * 19, "aigw")])
def test_a_key_of_somebody_else(wizard: Wizard, pasted: str, whose: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Is noticed, and taken when the person insists."""
    plan, _ = wizard.ask(
        "providers",
        (WHICH, ["groq"]),
        ("Key of groq", pasted),
        ("Use it all the same?", None),
        ("Key of groq", pasted),
        ("Use it all the same?", True),
        ("Another key", None),
        check=False,
    )
    assert plan.providers[0].keys == [Key(secret=pasted)]
    assert whose in capsys.readouterr().err


def test_extra_questions_only_where_they_are_needed(wizard: Wizard) -> None:
    """Azure's resource, Cloudflare's account; what the environment knows is proposed."""
    plan, _ = wizard.ask(
        "providers",
        (WHICH, ["azure", "cloudflare"]),
        ("Azure OpenAI / Microsoft Foundry: resource", None),
        ("Key of azure", KEY),
        ("Another key", None),
        ("Cloudflare", ""),
        ("Cloudflare", "acc-1"),
        ("Key of cloudflare", KEY),
        ("Another key", None),
        environ={"AZURE_RESOURCE_NAME": "contoso"},
        check=False,
    )
    assert [one.settings for one in plan.providers] == [{"resource": "contoso"}, {"account_id": "acc-1"}]


def test_a_server_of_ones_own(wizard: Wizard) -> None:
    """Name, address, perhaps a key; what it turns out to be is remembered."""
    with Emulated({"GET /v1/models": guarded(MODELS)}) as far:
        plan, _ = wizard.ask(
            "providers",
            (WHICH, ["openai-compatible"]),
            ("A name for it", "no spaces, please"),
            ("A name for it", "openai"),
            ("A name for it", "gpu"),
            ("Its base URL", "ftp://x"),
            ("Its base URL", f"{far.root}/"),
            ("Key of gpu", KEY),
            ("Another key", None),
        )
    (gpu,) = plan.providers
    assert (gpu.name, gpu.models, gpu.table()["base_url"]) == ("gpu", ("small-1", "large-1"), far.url)


def test_a_local_server_that_does_not_answer(wizard: Wizard) -> None:
    """Another address, later, or not at all."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    with Emulated({"GET /v1/models": MODELS}) as far:
        vllm = Wizard(wizard.folder)
        plan, _ = vllm.ask(
            "providers", (WHICH, ["vllm"]), (NOW, "url"), ("Its base URL", dead), (NOW, "url"), ("Its base URL", far.url)
        )
        assert [(one.base_url, one.models) for one in plan.providers] == [(far.url, ("small-1", "large-1"))]
    plan, _ = vllm.ask("providers", (WHICH, ["vllm"]), (NOW, "url"), ("Its base URL", dead), (NOW, "keep"))
    assert [one.base_url for one in plan.providers] == [dead]
    plan, _ = vllm.ask("providers", (WHICH, ["vllm"]), (NOW, "url"), ("Its base URL", dead), (NOW, ""))
    assert plan.providers == []


def test_a_wrong_key_then_the_right_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said, and asked again."""
    with Emulated({"GET /v1/models": guarded(MODELS)}) as far:
        plan, _ = Wizard(tmp_path, at(far.url)).ask(
            "providers",
            (WHICH, ["openai"]),
            (WHAT, "add"),
            ("Key of openai", OTHER),
            (NOW, "again"),
            ("Key of openai", KEY),
            ("Another", None),
        )
    assert plan.providers[0].keys == [Key(secret=KEY)]
    said = capsys.readouterr().err
    assert "wrong key" in said
    assert "...cdef: the key is good, 2 models" in said
    assert KEY not in said
    assert OTHER not in said


@pytest.mark.parametrize(("answer", "said", "first"), [(NO_MONEY, "no credit", "keep"), (PAGE, "wrong address", "url")])
def test_other_verdicts(tmp_path: Path, answer: Answer, said: str, first: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is told apart, with its own way out first; kept when the person says so, left out when not."""
    with Emulated({"GET /v1/models": answer}) as far:
        wizard = Wizard(tmp_path, at(far.url))
        plan, asker = wizard.ask(
            "providers", (WHICH, ["openai"]), (WHAT, "add"), ("Key of openai", KEY), (NOW, "keep"), ("Another", None)
        )
        assert plan.providers[0].keys == [Key(secret=KEY)]
        assert asker.choices[NOW][0].value == first
        plan, _ = wizard.ask("providers", (WHICH, ["openai"]), (WHAT, "add"), ("Key of openai", KEY), (NOW, ""))
        assert plan.providers == []
    assert said in capsys.readouterr().err


def test_the_check_can_be_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the check: the key stays."""
    with Emulated({"GET /v1/models": guarded(MODELS)}) as far:
        plan, _ = Wizard(tmp_path, at(far.url)).ask(
            "providers",
            (WHICH, ["openai"]),
            (WHAT, "add"),
            ("Key of openai", OTHER),
            ("Asking openai", SKIP),
            ("Another", None),
        )
        assert far.asked == []
    assert plan.providers[0].keys == [Key(secret=OTHER)]
    assert "Not checked" in capsys.readouterr().err


def test_no_change(tmp_path: Path) -> None:
    """Comes first when there is a config, and is what Enter takes."""
    plan, asker = Wizard(tmp_path, at("http://127.0.0.1:1/v1")).ask("providers", (WHICH, None))
    assert plan.providers == []
    assert asker.choices[WHICH][0].note == "openai"
    assert asker.choices[WHICH][1].note == "configured"


def test_a_configured_provider(tmp_path: Path) -> None:
    """Its keys are added to or replaced, its address changed; a variable that is in use is not offered again."""
    wizard = Wizard(tmp_path, '[providers.openai]\nkeys = ["env:OPENAI_API_KEY"]\n')
    environ = {"OPENAI_API_KEY": "sk-x"}
    how: dict[str, Any] = {"environ": environ, "check": False}
    plan, _ = wizard.ask("providers", (WHICH, ["openai"]), (WHAT, "add"), ("Key of openai", KEY), ("Another", None), **how)
    assert [(one.old, one.replace, one.keys) for one in plan.providers] == [(True, False, [Key(secret=KEY)])]
    plan, _ = wizard.ask(
        "providers", (WHICH, ["openai"]), (WHAT, "replace"), ("Key of openai", "env:OPENAI_API_KEY"), ("Another", None), **how
    )
    assert [(one.replace, one.keys) for one in plan.providers] == [(True, [Key("env:OPENAI_API_KEY")])]
    plan, _ = wizard.ask("providers", (WHICH, ["openai"]), (WHAT, "url"), ("Its base URL", "http://10.0.0.1/v1"), **how)
    assert [one.base_url for one in plan.providers] == ["http://10.0.0.1/v1"]
    plan, _ = wizard.ask("providers", (WHICH, ["openai"]), (WHAT, ""), **how)
    assert plan.providers == []
    plan, _ = wizard.ask("providers", (WHICH, ["openai"]), (WHAT, "replace"), ("Key of openai", ""), ("Key", ""), **how)
    assert plan.providers == []


def test_what_the_new_names_shadow(wizard: Wizard, capsys: pytest.CaptureFixture[str]) -> None:
    """Said as soon as it is known."""
    wizard.ask(
        "providers",
        (WHICH, ["anthropic", "claude-code"]),
        ("Key of anthropic", KEY),
        ("Another", None),
        check=False,
    )
    assert "claude-code/MODEL reaches claude-code" in " ".join(capsys.readouterr().err.split())


# ---- models

TWO = '[providers.openai]\nkeys = ["env:A"]\n[providers.deepseek]\nkeys = ["env:B"]\n'
ROUTE = '[routes.default]\ntargets = [{provider = "openai", model = "gpt-6-luna"}]\n'
DEFAULT, FALLBACK = "Default model", "Fallback"


def test_the_default_and_a_fallback(tmp_path: Path) -> None:
    """The first provider's usual one; the fallback is another provider's."""
    plan, asker = Wizard(tmp_path, TWO).ask("models", (DEFAULT, None), (FALLBACK, None))
    assert (plan.default, plan.fallback, plan.no_fallback) == (
        Model("openai", "gpt-6-sol"),
        Model("deepseek", "deepseek-flash"),
        False,
    )
    assert all(choice.note == "deepseek" for choice in asker.choices["Fallback, when that one fails"][:-1])


def test_no_fallback(tmp_path: Path) -> None:
    """When it is not wanted."""
    plan, _ = Wizard(tmp_path, TWO).ask("models", (DEFAULT, None), (FALLBACK, ""))
    assert (plan.fallback, plan.no_fallback) == (None, True)


def test_no_fallback_with_one_provider(tmp_path: Path) -> None:
    """Nobody else is there; nor with one that speaks another API, nor with the demo, which makes its answers up."""
    plan, _ = Wizard(tmp_path, '[providers.openai]\nkeys = ["env:A"]\n[providers.demo]\n').ask("models", (DEFAULT, None))
    assert plan.fallback is None
    plan, _ = Wizard(tmp_path, '[providers.openai]\nkeys = ["env:A"]\n').ask("models", (DEFAULT, None))
    assert plan.default == Model("openai", "gpt-6-sol")
    other = '[providers.openai]\nkeys = ["env:A"]\n[providers.anthropic]\nkeys = ["env:B"]\n'
    plan, _ = Wizard(tmp_path, other).ask("models", (DEFAULT, "openai/gpt-6-sol"))
    assert plan.fallback is None


def test_what_stands_is_proposed(tmp_path: Path) -> None:
    """And stays, when it is taken."""
    fallback = 'fallback = [{provider = "deepseek", model = "deepseek-flash"}]\n'
    plan, asker = Wizard(tmp_path, TWO + ROUTE + fallback).ask("models", (DEFAULT, None), (FALLBACK, None))
    assert (plan.default, plan.fallback, plan.no_fallback) == (None, None, False)
    assert asker.choices['Default model (what "default" means)'][0].note == "openai/gpt-6-luna"


def test_a_typed_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goes to whom it belongs; one that nobody has is asked again."""
    plan, _ = Wizard(tmp_path, TWO).ask("models", (DEFAULT, "nobody-has-it"), (DEFAULT, "gpt-9"), (FALLBACK, "deepseek/x"))
    assert (plan.default, plan.fallback) == (Model("openai", "gpt-9"), Model("deepseek", "x"))
    assert "nobody-has-it" in capsys.readouterr().err


def test_no_provider_no_model(wizard: Wizard) -> None:
    """Nothing to ask."""
    wizard.ask("models")


# ---- port and consumer


def test_the_port(wizard: Wizard) -> None:
    """What stands, or 8080; only numbers of ports."""
    plan, asker = wizard.ask("port", ("Port", "0"), ("Port", "x"), ("Port", "70000"), ("Port", "22341"))
    assert plan.port == 22341
    assert asker.complaints == ["a number from 1 to 65535"] * 3


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said who has it, and another one is proposed; a taken one is not accepted either."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        plan, _ = Wizard(tmp_path, f"[server]\nport = {port}\n").ask("port", ("Port", None))
        said = capsys.readouterr().err
        assert f"{port} is taken by " in said
        assert "(process " in said
        assert plan.port is not None
        assert plan.port > port
        _, asker = Wizard(tmp_path / ".", "[server]\nport = 22399\n").ask("port", ("Port", str(port)), ("Port", "22341"))
        assert f"{port} is taken by " in asker.complaints[0]


def test_the_consumer(wizard: Wizard) -> None:
    """ "me", or another name that can be one."""
    plan, _ = wizard.ask("consumer", ("A key to call it with", None), have=False)
    assert plan.consumer == "me"
    plan, asker = wizard.ask("consumer", ("A key", "operator"), ("A key", "!"), ("A key", "张伟"), have=False)
    assert plan.consumer == "张伟"
    assert len(asker.complaints) == 2


def test_another_consumer_key(wizard: Wizard) -> None:
    """Not unless it is wanted."""
    plan, _ = wizard.ask("consumer", ("There are consumer keys already", None), have=True)
    assert plan.consumer == ""
    plan, _ = wizard.ask("consumer", ("There are", True), ("A key", None), have=True)
    assert plan.consumer == "me"


# ---- language


@pytest.mark.parametrize(
    ("locale", "title"), [("C", "DeepSeek"), ("en_US.UTF-8", "DeepSeek 深度求索"), ("zh_CN.UTF-8", "深度求索 DeepSeek")]
)
def test_names_in_the_reader_s_script(
    wizard: Wizard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], locale: str, title: str
) -> None:
    """Chinese first for those who read it, English alone where only ASCII can be drawn."""
    monkeypatch.setenv("LC_ALL", locale)
    _, asker = wizard.ask("providers", ("", ["demo"]))
    (choices,) = asker.choices.values()
    assert next(choice.title for choice in choices if choice.value == "deepseek") == title
    assert asker.asked == ["使用哪些服务商？" if locale.startswith("zh") else WHICH]
    assert capsys.readouterr().err.isascii() is (locale == "C")


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
