"""The first calls, as text. That they run is tried in tests/cli/test_init.py."""

from __future__ import annotations

import shlex

from aigw.cli.wizard.snippets import snippets

URL, KEY = "http://127.0.0.1:8080/v1", "sk-aigw-test"


def test_both_apis() -> None:
    """curl, OpenAI's SDK, Anthropic's."""
    found = {snippet.title: snippet.text for snippet in snippets(URL, KEY, "default", "claude-x")}
    assert list(found) == ["curl", "Python, openai", "Python, anthropic"]
    words = shlex.split(found["curl"])
    assert words[:2] == ["curl", f"{URL}/chat/completions"]
    assert f"Authorization: Bearer {KEY}" in words
    assert '"model": "default"' in words[-1]
    assert 'base_url="http://127.0.0.1:8080",' in found["Python, anthropic"]
    assert 'model="claude-x"' in found["Python, anthropic"]
    for text in found.values():
        if not text.startswith("curl"):
            compile(text, "snippet", "exec")


def test_anthropics_api_alone() -> None:
    """curl asks for what there is."""
    curl, sdk = snippets(URL, KEY, "", "claude-x")
    assert shlex.split(curl.text)[1] == f"{URL}/messages"
    assert '"max_tokens"' in curl.text
    assert sdk.title == "Python, anthropic"


def test_openais_api_alone_and_none() -> None:
    """What nobody serves is not shown."""
    assert [one.title for one in snippets(URL, KEY, "m", "")] == ["curl", "Python, openai"]
    assert snippets(URL, KEY, "", "") == []


def test_a_model_with_a_quote() -> None:
    """Model names come from providers: they stay inside their quotes."""
    name = 'it\'s "x"\\'
    curl, sdk, _ = snippets(URL, KEY, name, name)
    assert '"model": "it\'s \\"x\\"\\\\"' in shlex.split(curl.text)[-1]
    compile(sdk.text, "snippet", "exec")
