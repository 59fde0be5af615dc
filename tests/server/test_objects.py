"""Paths that name something a provider keeps; and the whole way there and back through a real server."""

from __future__ import annotations

import json
from pathlib import Path

import openai
import pytest

from aigw.server import objects
from aigw.server.inference import PREFIXES
from tests import loopback
from tests.data_port import BEARER, KEY, serving
from tests.loopback import Peer

OTHER = "the-key-of-bob"


@pytest.mark.parametrize(
    ("method", "path", "operation", "query"),
    [
        ("GET", "/v1/responses/resp_1", "response_get", ""),
        ("GET", "/responses/resp_1?stream=true&starting_after=3", "response_get", "stream=true&starting_after=3"),
        ("DELETE", "/openai/v1/responses/resp_1/", "response_delete", ""),
        ("POST", "/v1/v1/responses/resp_1/cancel", "response_cancel", ""),
        ("GET", "/v1/responses/resp_1/input_items?key=sk-aigw-x&limit=2", "response_input_items", "limit=2"),
    ],
)
def test_a_path_names_its_object(method: str, path: str, operation: str, query: str) -> None:
    """Leniently; the caller's key in the query is not the provider's business."""
    found = objects.named(method, path, PREFIXES)
    assert found is not None
    assert found.operation is not None
    assert (found.operation.name, found.object_id, found.query) == (operation, "resp_1", query)


@pytest.mark.parametrize(
    "path", ["/v1/responses", "/v1/responses/a%2Fb", "/v1/responses/..", "/v1/file/x", "/v1/responses/a/b/c", "/v1/models/x"]
)
def test_what_names_nothing_is_none(path: str) -> None:
    assert objects.named("GET", path, PREFIXES) is None


def test_another_method_is_told_which_there_are() -> None:
    assert objects.named("PUT", "/v1/responses/resp_1", PREFIXES) == objects.Named(None, methods=("DELETE", "GET"))


def answer(**fields: object) -> dict[str, object]:
    usage = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}
    usage |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}  # type: ignore[dict-item]
    content = [{"type": "output_text", "text": "hi", "annotations": []}]
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}
    head = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "gpt-6-sol"}
    return (
        head | {"output": [message], "usage": usage, "tools": [], "tool_choice": "auto", "parallel_tool_calls": True} | fields
    )


class Far:
    """A provider that keeps responses."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []  # request line, key
        self.status = "completed"

    async def play(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            line = request.line.decode().rpartition(" ")[0]
            if not line.endswith("/models"):
                self.asked.append((line, request.headers[b"authorization"].decode().removeprefix("Bearer ")))
            await peer.send(loopback.ok(json.dumps(self._answer(line)).encode(), b"content-type: application/json"))

    def _answer(self, line: str) -> dict[str, object]:
        if line.startswith("DELETE"):
            return {"id": "resp_1", "object": "response", "deleted": True}
        if "input_items" in line:
            return {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None}
        if line.endswith("/input_tokens"):
            return {"object": "response.input_tokens", "input_tokens": 12}
        if line.endswith("/models"):
            return {"object": "list", "data": []}
        pending = self.status != "completed" and not line.startswith("GET")
        return answer(status=self.status, usage=None, output=[]) if pending else answer()


def config(port: int, keys: str = '"sk-far-one", "sk-far-two"') -> str:
    return f"""
[server]
port = 0
[admin]
port = 0
[providers.openai]
base_url = "http://127.0.0.1:{port}/v1"
keys = [{keys}]
[consumers.ci]
key = "{KEY}"
[consumers.bob]
key = "{OTHER}"
"""


MADE = json.dumps({"model": "gpt-6-sol", "input": "hello"}).encode()


async def test_a_response_goes_back_to_the_key_that_made_it(tmp_path: Path) -> None:
    """By the official SDK, also after a restart; only its own consumer finds it; to look at it costs nothing; once deleted
    it is gone."""
    far = Far()
    async with loopback.serving(far.play) as upstream:
        async with serving(tmp_path, config(upstream.port)) as running:
            assert (await running.ask("POST", "/v1/responses", MADE)).status == 200
            (made,) = await running.records(1)
            assert (made.operation, made.input, made.output) == ("responses", 5, 3)
        _, key = far.asked[-1]
        async with serving(tmp_path, config(upstream.port)) as running:
            client = openai.AsyncOpenAI(api_key=KEY, base_url=f"http://127.0.0.1:{running.server.port}/v1", max_retries=0)
            for _ in range(4):  # round robin would come by the other key
                assert (await client.responses.retrieve("resp_1", include=["file_search_call.results"])).output_text == "hi"
            await client.responses.input_items.list("resp_1", limit=2)
            await client.responses.cancel("resp_1")
            assert {used for _, used in far.asked} == {key}
            assert [line.partition("?")[0] for line, _ in far.asked[-3:]] == [
                "GET /v1/responses/resp_1", "GET /v1/responses/resp_1/input_items", "POST /v1/responses/resp_1/cancel",
            ]  # fmt: skip
            more = json.dumps({"model": "gpt-6-sol", "input": "more", "previous_response_id": "resp_1"}).encode()
            assert (await running.ask("POST", "/v1/responses", more)).status == 200
            assert far.asked[-1][1] == key
            asked = len(far.asked)
            bob = {"authorization": f"Bearer {OTHER}"}
            for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
                refused = await running.ask(method, f"/v1/responses/resp_1{path}", headers=bob)
                assert (refused.status, refused.headers["x-aigw-error"]) == (404, "caller_object_not_found")
            assert (await running.ask("POST", "/v1/responses", more, bob)).status == 400
            assert (await running.ask("GET", "/v1/responses/resp_1", headers={})).status == 401
            assert len(far.asked) == asked
            await client.responses.delete("resp_1")
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve("resp_1")
            await client.close()
            records = await running.records(1 + 8 + 7)
            looked = [record for record in records if record.operation == "response_get" and record.status == 200]
            assert len(looked) == 4
            assert {(record.input, record.output, record.estimated, record.cost) for record in looked} == {(0, 0, False, 0)}
            assert {record.requested_model for record in looked} == {"gpt-6-sol"}


async def test_what_is_made_in_the_background_is_metered_when_it_is_told(tmp_path: Path) -> None:
    """Once."""
    far = Far()
    far.status = "queued"
    async with loopback.serving(far.play) as upstream, serving(tmp_path, config(upstream.port)) as running:
        body = json.dumps({"model": "gpt-6-sol", "input": "hello", "background": True}).encode()
        assert (await running.ask("POST", "/v1/responses", body)).status == 200
        for _ in range(2):
            assert (await running.ask("GET", "/v1/responses/resp_1")).status == 200
        records = await running.records(3)
        assert [(record.operation, record.input) for record in records] == [
            ("responses", 0), ("response_get", 5), ("response_get", 0),
        ]  # fmt: skip


async def test_what_shall_not_be_stored_is_not_noted_and_counting_is_free(tmp_path: Path) -> None:
    far = Far()
    async with loopback.serving(far.play) as upstream, serving(tmp_path, config(upstream.port)) as running:
        body = json.dumps({"model": "gpt-6-sol", "input": "hello", "store": False}).encode()
        assert (await running.ask("POST", "/v1/responses", body)).status == 200
        assert (await running.ask("GET", "/v1/responses/resp_1")).status == 404
        assert (await running.ask("POST", "/v1/responses/input_tokens", MADE)).json()["input_tokens"] == 12
        records = await running.records(3)
        assert (records[-1].operation, records[-1].input, records[-1].estimated) == ("response_input_tokens", 0, False)
        assert (await running.ask("PUT", "/v1/responses/resp_1", b"{}", BEARER)).status in (404, 405)
