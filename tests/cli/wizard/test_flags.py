"""A plan from flags."""

from __future__ import annotations

import io
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import typer

from aigw.cli.wizard import flags as room
from aigw.cli.wizard.flags import Flags
from aigw.cli.wizard.plan import Key, Model, Plan
from aigw.config.edit import ConfigFile
from tests.cli.emulated import KEY, MODELS, NO_MONEY, Emulated, guarded


def filled(folder: Path, flags: Flags, environ: Mapping[str, str] | None = None, config: str = "") -> tuple[Plan, ConfigFile]:
    path = folder / "config.toml"
    if config:
        path.write_text(config)
    plan, file = Plan(path), ConfigFile.read(path)
    room.fill(plan, flags, file, environ or {})
    return plan, file


def test_keys_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """References stay references, a relative file becomes one the server finds, standard input and literals get a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "k.txt").write_text("sk-file\n")
    (tmp_path / "k.txt").chmod(0o600)
    monkeypatch.setattr(sys, "stdin", io.StringIO(f" 'Bearer {KEY}' \n"))
    plan, _ = filled(
        tmp_path,
        Flags(providers=["openai=env:A", "openai=file:k.txt", "groq=-", "xai=xai-literal-key-123456", "ollama"]),
        {"A": "sk-a"},
    )
    assert {one.name: one.keys for one in plan.providers} == {
        "openai": [Key("env:A"), Key("file:~/k.txt")],
        "groq": [Key(secret=KEY)],
        "xai": [Key(secret="xai-literal-key-123456")],
        "ollama": [],
    }
    said = capsys.readouterr().err
    assert "xai: a key on the command line is seen by others" in said
    assert "literal-key" not in said


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (Flags(providers=["opnai=env:A"]), "did you mean openai"),
        (Flags(providers=["zzzzzz=env:A"]), "needs --base-url zzzzzz=URL"),
        (Flags(providers=["openai"]), "OpenAI needs a key, as in --provider openai=env:OPENAI_API_KEY"),
        (Flags(providers=["openai="]), "the key is empty"),
        (Flags(providers=["openai=env:NOT_SET"]), "NOT_SET is not set"),
        (Flags(providers=["openai=file:/nowhere/k"]), "cannot read"),
        (Flags(providers=["openai=two words"]), "more than one word"),
        (Flags(base_urls=["openai"]), "expected NAME=URL"),
        (Flags(settings=["azure=x"]), "expected NAME.KEY=VALUE"),
        (Flags(providers=["azure=env:A"], settings=["azure.resorce=x"]), "has no setting 'resorce'; it takes resource"),
        (Flags(from_env=True), "no variable of a known provider"),
    ],
)
def test_what_cannot_be_meant(tmp_path: Path, flags: Flags, complaint: str) -> None:
    """Is wrong usage, with what to write instead."""
    with pytest.raises(typer.BadParameter, match=complaint):
        filled(tmp_path, flags, {"A": "sk-a"})


def test_a_variable_only_the_server_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --no-check it is written, with a warning."""
    plan, _ = filled(tmp_path, Flags(providers=["openai=env:NOT_SET"], check=False))
    assert plan.providers[0].keys == [Key("env:NOT_SET")]
    assert "NOT_SET" in capsys.readouterr().err


def test_addresses_and_settings(tmp_path: Path) -> None:
    """Of the catalog's rows and of one's own servers."""
    plan, _ = filled(
        tmp_path,
        Flags(
            providers=["azure=env:A", "gpu"],
            base_urls=["gpu=http://10.0.0.7:8000/v1", "vllm=http://h/v1"],
            settings=["azure.resource=contoso"],
            demo=True,
        ),
        {"A": "sk-a"},
    )
    assert [(one.name, one.kind, one.base_url, one.settings) for one in plan.providers] == [
        ("azure", "", "", {"resource": "contoso"}),
        ("gpu", "openai-compatible", "http://10.0.0.7:8000/v1", {}),
        ("vllm", "", "http://h/v1", {}),
        ("demo", "", "", {}),
    ]


def test_from_the_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each variable once, what is configured already not again; what needs more says so."""
    environ = {
        "OPENAI_API_KEY": "a",
        "DASHSCOPE_API_KEY": "b",
        "CLOUDFLARE_API_TOKEN": "c",
        "GROQ_API_KEY": "d",
        "XAI_API_KEY": "",
    }
    plan, _ = filled(tmp_path, Flags(from_env=True), environ, '[providers.mine]\nkind = "groq"\nkeys = ["env:GROQ_API_KEY"]\n')
    assert {one.name: one.keys for one in plan.providers} == {
        "openai": [Key("env:OPENAI_API_KEY", found=True)],
        "dashscope": [Key("env:DASHSCOPE_API_KEY", found=True)],
    }
    assert "cloudflare is left out: it needs --setting cloudflare.account_id=VALUE" in capsys.readouterr().err


def test_a_standing_provider_gets_further_keys(tmp_path: Path) -> None:
    """Known by its name in the config, whatever its kind."""
    plan, _ = filled(
        tmp_path, Flags(providers=["work=env:A"]), {"A": "sk-a"}, '[providers.work]\nkind = "openai"\nkeys = ["env:B"]\n'
    )
    assert [(one.name, one.kind, one.old, one.keys) for one in plan.providers] == [("work", "openai", True, [Key("env:A")])]


# ---- checks


def test_good_and_wrong_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that was named and is wrong ends it; one that was found is left out."""
    with Emulated({"GET /v1/models": guarded(MODELS)}) as far:
        url = [f"openai={far.url}"]
        plan, file = filled(tmp_path, Flags(providers=[f"openai={KEY}"], base_urls=url))
        (one,) = room.check(plan, file)
        assert (one.provider, one.key, one.verdict.kind) == ("openai", "a new file", "good")
        assert plan.providers[0].models == ("small-1", "large-1")
        plan, file = filled(tmp_path, Flags(providers=["openai=sk-wrong-key-123456"], base_urls=url))
        with pytest.raises(typer.Exit) as end:
            room.check(plan, file)
        assert end.value.exit_code == 1
        plan, file = filled(tmp_path, Flags(providers=["openai=sk-wrong-key-123456"], base_urls=url))
        plan.providers[0].keys[0].found = True
        room.check(plan, file)
        assert plan.providers == []
    said = capsys.readouterr().err
    assert "error: openai: wrong key" in said
    assert "left out" in said
    assert "sk-wrong" not in said


def test_what_is_only_doubtful_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No credit, no answer: a warning."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    with Emulated({"GET /v1/models": NO_MONEY}) as far:
        plan, file = filled(
            tmp_path, Flags(providers=[f"openai={KEY}", "vllm"], base_urls=[f"openai={far.url}", f"vllm={dead}"])
        )
        assert [one.verdict.kind for one in room.check(plan, file)] == ["no_credit", "wrong_url"]
    assert len(plan.providers) == 2
    assert capsys.readouterr().err.count("warning:") == 3  # a literal key is one too


def test_nothing_to_check(tmp_path: Path) -> None:
    """A port alone asks nobody."""
    plan, file = filled(tmp_path, Flags(port=9000))
    assert room.check(plan, file) == []


# ---- models and the port

TWO = '[providers.openai]\nkeys = ["env:A"]\n[providers.deepseek]\nkeys = ["env:B"]\n'


def chosen(folder: Path, flags: Flags, config: str = TWO) -> Plan:
    plan, file = filled(folder, flags, {}, config)
    room.choose(plan, flags, file, folder / "data")
    return plan


def test_models(tmp_path: Path) -> None:
    """Named, or the first provider's usual one; a fallback only when it is named."""
    plan = chosen(tmp_path, Flags(port=22341))
    assert (plan.default, plan.fallback) == (Model("openai", "gpt-6-sol"), None)
    plan = chosen(tmp_path, Flags(default_model="deepseek/x", fallback="gpt-6-luna"))
    assert (plan.default, plan.fallback) == (Model("deepseek", "x"), Model("openai", "gpt-6-luna"))


def test_a_default_that_stands_stays(tmp_path: Path) -> None:
    """Unless another is named."""
    assert chosen(tmp_path, Flags(port=22341), TWO + '[routes.default]\ntargets = [{provider = "deepseek"}]\n').default is None


def test_what_a_new_provider_shadows_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the questions say it."""
    environ = {"A": "sk-a"}
    plan, file = filled(tmp_path, Flags(providers=["claude-code"]), environ, '[providers.anthropic]\nkeys = ["env:A"]\n')
    room.choose(plan, Flags(), file, tmp_path / "data")
    assert "claude-code/MODEL reaches claude-code" in capsys.readouterr().err


def test_models_that_nobody_has(tmp_path: Path) -> None:
    """Wrong usage."""
    with pytest.raises(typer.BadParameter, match="PROVIDER/MODEL"):
        chosen(tmp_path, Flags(default_model="nobody-has-it"))
    with pytest.raises(typer.BadParameter, match="PROVIDER/MODEL"):
        chosen(tmp_path, Flags(fallback="nobody-has-it"))
    with pytest.raises(typer.BadParameter, match="no default model"):
        chosen(tmp_path, Flags(fallback="x"), "# nothing\n")


def test_ports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A taken one that was named is an error; what stands in the config is nobody's business."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(typer.Exit):
            chosen(tmp_path, Flags(port=port))
        assert f"port {port} is taken by " in capsys.readouterr().err
        assert chosen(tmp_path, Flags(port=port), f"[server]\nport = {port}\n").port == port
    assert chosen(tmp_path, Flags(demo=True)).port is None


def test_a_taken_default_port_moves_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a new config the next free one is written."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(room, "PORT", server.getsockname()[1])
        plan = Plan(tmp_path / "config.toml")
        room.choose(plan, Flags(demo=True), ConfigFile.read(plan.path), tmp_path)
        assert plan.port is not None
        assert plan.port > server.getsockname()[1]
    assert "is free, and is written" in capsys.readouterr().err


def test_is_there_anything_to_do() -> None:
    """--no-check alone says nothing."""
    assert not Flags().any()
    assert not Flags(check=False).any()
    assert Flags(consumer="").any()
    assert Flags(port=1).any()
