from __future__ import annotations

from pathlib import Path

import pytest

from aigw.cli.names import understood
from aigw.cli.offers import Offers, Place, would_serve
from aigw.config.load import load_with_notes
from aigw.errors import CallerError
from aigw.providers import catalog

CONFIG = """
[providers.anthropic]
keys = ["env:NOT_HERE"]
[providers.openai]
keys = ["env:NOT_HERE"]
[providers.gpu]
kind = "openai-compatible"
base_url = "http://10.0.0.7:8000/v1"
models = ["mine", "other"]
[routes.quick]
targets = [{provider = "openai", model = "gpt-6-luna"}]
fallback = [{provider = "anthropic", model = "claude-haiku-5-5"}]
"""


def offers(folder: Path, config: str = CONFIG) -> Offers:
    file = folder / "config.toml"
    file.write_text(config)
    file.chmod(0o600)
    names = understood(load_with_notes(file), folder, {})
    return Offers(names.providers, names.table)


def test_who_serves_what(tmp_path: Path) -> None:
    """By the API that the provider speaks; a fallback counts, an unknown name is nobody's."""
    found = offers(tmp_path)
    assert [found.serves("claude-sonnet-5-5", one) for one in ("chat", "messages", "responses")] == [False, True, False]
    assert [found.serves("gpt-6-sol", one) for one in ("chat", "messages", "responses")] == [True, False, True]
    assert [found.serves("quick", one) for one in ("chat", "messages")] == [True, True]
    assert not found.serves("nobody-has-this", "chat")
    assert found.speakers("messages") == ["anthropic"]


def test_where_it_goes(tmp_path: Path) -> None:
    """The first place that speaks it, with what a request has to know of it."""
    found = offers(tmp_path)
    assert found.place("quick", "chat") == Place("openai", "openai", stream_usage=True)
    assert found.place("quick", "messages") == Place("anthropic", "anthropic", stream_usage=True)
    assert found.place("mine", "messages") is None
    assert found.place("nobody-has-this", "chat") is None
    with pytest.raises(CallerError, match="did you mean"):
        found.route("quik")


def test_names(tmp_path: Path) -> None:
    """What is listed and can be asked for by that API."""
    found = offers(tmp_path)
    assert found.names("chat") == ["quick", "mine", "other"]
    assert found.names("messages") == ["quick"]


def test_the_choice_for_those_who_name_none(tmp_path: Path) -> None:
    """The default route; else a provider's usual model, in the config's order; else a name that is listed; else none."""
    default = '[routes.default]\ntargets = [{provider = "gpu", model = "mine"}]\n'
    assert offers(tmp_path, CONFIG + default).choice("chat") == "default"
    assert offers(tmp_path, CONFIG + default).choice("messages") == catalog.row("anthropic").default_model
    assert offers(tmp_path).choice("responses") == catalog.row("openai").default_model
    gpu = '[providers.gpu]\nkind = "openai-compatible"\nbase_url = "http://10.0.0.7:8000/v1"\n'
    assert offers(tmp_path, gpu + 'models = ["mine"]\n').choice("chat") == "mine"
    assert offers(tmp_path, gpu).choice("chat") == ""
    assert offers(tmp_path, "").choice("chat") == ""


def test_who_would_serve_it() -> None:
    """Suggestions for somebody without one: vendors first, the demo never."""
    assert would_serve("messages")[0] == "anthropic"
    assert would_serve("responses")[0] == "openai"
    for operation in ("chat", "messages", "responses"):
        found = would_serve(operation)
        assert "demo" not in found
        assert [catalog.row(one).category for one in found] == sorted(
            (catalog.row(one).category for one in found),
            key=("vendor", "cloud", "host", "aggregator", "local").index,
        )
