"""`GET /v1/models` in both shapes, from a table of names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web

from aigw.config import schema
from aigw.errors import CallerError
from aigw.routing.table import Claimant, Table
from aigw.server import models


@pytest.fixture
def table() -> Table:
    route = schema.Route(targets=(schema.RouteTarget(provider="openai", model="gpt-6"),))
    claimants = [Claimant(name="openai", kind="openai", prefixes=("gpt-",)), Claimant(name="groq", kind="groq")]
    table = Table({"fast": route, "gpt-5*": route}, claimants)
    table.set_live("groq", ["llama-4", "qwen3"])
    return table


def told(response: web.Response) -> dict[str, Any]:
    assert response.content_type == "application/json"
    assert isinstance(response.body, bytes)
    found: dict[str, Any] = json.loads(response.body)
    return found


def test_openais_list(table: Table) -> None:
    """Routes and live names, with who serves them; patterns and prefixes are no names."""
    listed = told(models.listing(table, "openai"))
    assert listed["object"] == "list"
    assert {(one["id"], one["owned_by"]) for one in listed["data"]} == {(name.id, name.owner) for name in table.names()}
    assert {"fast", "llama-4", "qwen3"} <= {one["id"] for one in listed["data"]}
    assert "gpt-5*" not in {one["id"] for one in listed["data"]}
    assert all(one["object"] == "model" and isinstance(one["created"], int) for one in listed["data"])


def test_anthropics_list(table: Table) -> None:
    """One page, that says so."""
    listed = told(models.listing(table, "anthropic"))
    ids = [one["id"] for one in listed["data"]]
    assert ids == [name.id for name in table.names()]
    assert (listed["has_more"], listed["first_id"], listed["last_id"]) == (False, ids[0], ids[-1])
    assert all(one["type"] == "model" and one["display_name"] == one["id"] for one in listed["data"])
    assert all(one["created_at"].endswith("Z") for one in listed["data"])


def test_an_empty_list() -> None:
    """A gateway without providers has none; the shapes hold."""
    empty = Table({}, [])
    assert told(models.listing(empty, "openai")) == {"object": "list", "data": []}
    assert told(models.listing(empty, "anthropic")) == {"data": [], "has_more": False, "first_id": None, "last_id": None}


@pytest.mark.parametrize(
    ("name", "owner"), [("fast", "openai"), ("llama-4", "groq"), ("groq/any", "groq"), ("gpt-6", "openai")]
)
def test_one_name_by_whatever_way(table: Table, name: str, owner: str) -> None:
    """Also one that is in no list: what may be asked for may be looked up."""
    assert told(models.one(table, name, "openai")) == {"id": name, "object": "model", "created": 0, "owned_by": owner}
    assert told(models.one(table, name, "anthropic"))["id"] == name


def test_a_name_nobody_serves(table: Table) -> None:
    """404, with the nearest."""
    with pytest.raises(CallerError, match="llama-4") as caught:
        models.one(table, "lama-4", "openai")
    assert caught.value.status == 404


def test_geminis_list(table: Table) -> None:
    """As Google's SDK reads it: names below `models/`, and what may be asked of each."""
    listed = told(models.listing(table, "gemini"))["models"]
    assert [one["name"] for one in listed] == [f"models/{name.id}" for name in table.names()]
    assert all("streamGenerateContent" in one["supportedGenerationMethods"] for one in listed)
    assert told(models.one(table, "fast", "gemini"))["name"] == "models/fast"
    assert told(models.one(table, "groq/any-embed", "gemini"))["supportedGenerationMethods"][0] == "embedContent"
