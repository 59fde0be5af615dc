"""deploy/: the examples can be read, their nodes' config can be served, and their parts fit together."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from aigw.config.load import load_text
from tests.docs.pages import ROOT

COMPOSE = (ROOT / "deploy/compose.yaml").read_text(encoding="utf-8")
KUBERNETES = (ROOT / "deploy/kubernetes.yaml").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")

EMBEDDED = {
    "compose": re.search(r"\n  node:\n    content: \|\n((?:      .*\n|\n)+)", COMPOSE),
    "kubernetes": re.search(r"\n  node.toml: \|\n((?:    .*\n|\n)+)", KUBERNETES),
}


def complaints(text: str) -> list[str]:
    """What no YAML reader would take, as far as these files use it: tabs, odd indentation, a key twice in one mapping, brackets
    and quotes that are not closed."""
    wrong = []
    for document in text.split("\n---\n"):
        open_keys: list[tuple[int, set[str]]] = []
        block = -1
        for number, raw in enumerate(document.splitlines(), 1):
            indent = len(raw) - len(raw.lstrip(" "))
            if not raw.strip() or raw.lstrip().startswith("#") or (block >= 0 and indent > block):
                continue
            block = -1
            if "\t" in raw or indent % 2:
                wrong.append(f"{number}: indentation: {raw}")
            line = re.sub(r"\s#\s.*$", "", raw)
            bare = re.sub(r"\"[^\"]*\"|'[^']*'", "", line)
            if any(bare.count(left) != bare.count(right) for left, right in ("{}", "[]")) or bare.count('"') % 2:
                wrong.append(f"{number}: not closed: {raw}")
            item = re.match(r"( *)(- )?([\w.$/-]+):(?: (.*))?$", line)
            if item is None:
                if not line.lstrip().startswith("- "):
                    wrong.append(f"{number}: neither key nor item: {raw}")
                continue
            depth = indent + (2 if item[2] else 0)
            while open_keys and (open_keys[-1][0] > depth or (item[2] and open_keys[-1][0] >= depth)):
                open_keys.pop()
            if not open_keys or open_keys[-1][0] < depth:
                open_keys.append((depth, set()))
            if item[3] in open_keys[-1][1]:
                wrong.append(f"{number}: twice: {item[3]}")
            open_keys[-1][1].add(item[3])
            if item[4] in ("|", ">"):
                block = indent
    return wrong


@pytest.mark.parametrize("text", [COMPOSE, KUBERNETES], ids=["compose", "kubernetes"])
def test_it_is_yaml(text: str) -> None:
    """As far as can be told without a reader of it."""
    assert complaints(text) == []
    assert complaints("a:\n   b: 1\n") != []
    assert complaints("a: 1\na: 2\n") != []
    assert complaints("a: [1\n") != []


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_nodes_config(name: str) -> None:
    """It can be served; it shares everything through addresses that the file hands to the container."""
    found = EMBEDDED[name]
    assert found is not None
    config = load_text(textwrap.dedent(found[1]), Path("node.toml")).config
    assert (config.storage.config, config.server.port, config.server.host) == ("store", 8080, "0.0.0.0")
    for address in (config.storage.url, config.storage.counters):
        assert address.startswith("env:")
        assert address.removeprefix("env:") in (COMPOSE if name == "compose" else KUBERNETES).replace(found[1], "")


def test_a_stop_lets_answers_finish() -> None:
    """Who ends a container waits longer than the server for its answers."""
    found = EMBEDDED["kubernetes"]
    assert found is not None
    config = load_text(textwrap.dedent(found[1]), Path("node.toml")).config
    grace = re.search(r"terminationGracePeriodSeconds: (\d+)", KUBERNETES)
    assert grace is not None
    assert int(grace[1]) > config.server.drain_timeout
    found = EMBEDDED["compose"]
    assert found is not None
    compose = load_text(textwrap.dedent(found[1]), Path("node.toml")).config
    grace = re.search(r"stop_grace_period: (\d+)s", COMPOSE)
    assert grace is not None
    assert int(grace[1]) > compose.server.drain_timeout


def test_no_secret_and_no_root() -> None:
    """Passwords come from outside, containers run as nobody in particular, and files that are named exist."""
    assert not re.search(r"(?i)(password|secret|key): +[\"']?[A-Za-z0-9]{6,}[\"']?$", COMPOSE + KUBERNETES, re.MULTILINE)
    assert "runAsNonRoot: true" in KUBERNETES
    assert re.search(r"^USER 10001$", DOCKERFILE, re.MULTILINE)
    assert (ROOT / "deploy/secrets.env.example").exists()
    for path in re.findall(r"/src/(\S+\.(?:lock|py))", DOCKERFILE):
        assert (ROOT / path).exists()
