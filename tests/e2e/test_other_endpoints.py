"""Files, batches, fine-tuning, speech to text, images, videos and raw paths: the official SDK, through a real `aigw serve`, to
a scripted provider of OpenAI's shape."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from aigw.protocols.forms import Form
from tests.e2e.conftest import Make
from tests.e2e.far_side import FarSide, answer, chunk, provider
from tests.e2e.world import Answer, Gateway, eventually, parse
from tests.loopback import Peer, Request

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK's own, of what OpenAI ends in time

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class OpenAILike:
    """Keeps files and batches, and answers the rest as OpenAI does. `seen` are all requests."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.seen: list[Request] = []
        self.files: dict[str, dict[str, Any]] = {}
        self.made = 0

    async def __call__(self, peer: Peer, request: Request, number: int) -> None:
        if request.headers.get(b"transfer-encoding") == b"chunked":
            request = request._replace(body=await unchunked(peer))
        self.seen.append(request)
        method, target, _ = request.line.decode().split(" ")
        path, _, query = target.partition("?")
        body, kind = self.answer(method, path.removeprefix(f"/{self.tag}"), query, request)
        if isinstance(body, list):
            await peer.send(STREAM + b"".join(chunk(event) for event in body) + b"0\r\n\r\n")
        elif isinstance(body, int):
            await peer.send(answer(body, {"error": {"message": "No such thing", "type": "invalid_request_error"}}))
        else:
            await peer.send(answer(200, body, kind=kind))

    def answer(self, method: str, path: str, query: str, request: Request) -> tuple[Any, str]:
        json_, text = "application/json", "text/plain; charset=utf-8"
        steps = path.removeprefix("/v1/").split("/")
        if steps[0] == "files":
            return self.answer_file(method, steps, query, request), "application/octet-stream" if "content" in steps else json_
        if steps[0] == "batches":
            return self.batch("completed" if method == "GET" else "validating"), json_
        if path == "/v1/fine_tuning/jobs":
            return {"id": f"ftjob-{self.tag}", "object": "fine_tuning.job", "status": "queued", "model": "m"}, json_
        if path.startswith("/v1/fine_tuning/jobs/"):
            if path.endswith("/events"):
                return {
                    "object": "list",
                    "data": [{"id": "ftevent-1", "object": "fine_tuning.job.event"}],
                    "has_more": False,
                }, json_
            return {"id": f"ftjob-{self.tag}", "object": "fine_tuning.job", "status": "cancelled", "result_files": []}, json_
        if path in ("/v1/audio/transcriptions", "/v1/audio/translations"):
            if b"srt" in request.body:
                return b"1\n00:00 --> 00:01\nhello\n", text
            if b'name="stream"' in request.body:
                usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 3, "total_tokens": 17}
                return [
                    b'data: {"type":"transcript.text.delta","delta":"hello"}\n\n',
                    b"data: "
                    + json.dumps({"type": "transcript.text.done", "text": "hello", "usage": usage}).encode()
                    + b"\n\n",
                ], ""
            usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 3, "total_tokens": 17}
            return {"text": "hello", "usage": usage}, json_
        if path.startswith("/v1/images/"):
            usage = {"input_tokens": 50, "output_tokens": 100, "total_tokens": 150}
            return {"created": 1, "data": [{"b64_json": "aGk="}], "usage": usage}, json_
        if steps[0] == "videos":
            if "content" in steps:
                return b"mp4 bytes", "video/mp4"
            self.made += 1
            name = f"video_{self.made}" if method == "POST" else steps[1]
            return {"id": name, "object": "video", "status": "queued", "model": "m", "progress": 0, "created_at": 1}, json_
        if steps[0] == "vector_stores":
            if "files" in steps:
                return {"id": steps[-1], "object": "vector_store.file", "vector_store_id": "vs_1", "status": "completed"}, json_
            return {"id": "vs_1", "object": "vector_store", "name": "s", "status": "completed"}, json_
        if steps[0] == "uploads":
            if "parts" in steps:
                return {"id": "part_1", "object": "upload.part", "upload_id": "upload_1"}, json_
            whole = {"id": "upload_1", "object": "upload", "status": "completed"}
            return whole | ({"file": {"id": "file-up", "object": "file"}} if "complete" in steps else {}), json_
        if path == "/v1/assistants":
            return {
                "id": "asst_1",
                "method": method,
                "query": query,
                "usage": {"prompt_tokens": 5, "completion_tokens": 2},
            }, json_
        if path == "/v1/stream":
            return [
                b'data: {"choices":[],"model":"m","usage":{"prompt_tokens":8,"completion_tokens":4}}\n\n',
                b"data: [DONE]\n\n",
            ], ""
        return 404, json_

    def answer_file(self, method: str, steps: list[str], query: str, request: Request) -> Any:
        if method == "POST":
            self.made += 1
            made = {"object": "file", "id": f"file-{self.tag}{self.made}", "bytes": len(request.body), "purpose": "batch"}
            self.files[made["id"]] = made
            return made
        if len(steps) == 1:
            after = query.partition("after=")[2].partition("&")[0]
            ids = list(self.files)
            ids = ids[ids.index(after) + 1 :] if after else ids
            page = [self.files[one] for one in ids[:2]]
            return {"object": "list", "data": page, "has_more": len(ids) > 2, "first_id": ids[0] if ids else None}
        if steps[1] not in self.files and not steps[1].startswith("file-out"):
            return 404
        if "content" in steps:
            return b'{"custom_id": "1"}\n'
        if method == "DELETE":
            return {"id": steps[1], "object": "file", "deleted": self.files.pop(steps[1], None) is not None}
        return self.files.get(steps[1], {"id": steps[1], "object": "file"})

    def batch(self, status: str) -> dict[str, Any]:
        more = {}
        if status == "completed":
            usage = {"input_tokens": 1000, "output_tokens": 200, "total_tokens": 1200}
            more = {"output_file_id": "file-out1", "usage": usage, "model": "gpt-6-sol"}
        head = {"id": f"batch_{self.tag}", "object": "batch", "status": status, "endpoint": "/v1/chat/completions"}
        return head | {"input_file_id": "f", "completion_window": "24h", "created_at": 1} | more


async def unchunked(peer: Peer) -> bytes:
    body = b""
    while size := int((await peer.reader.readuntil(b"\r\n"))[:-2], 16):
        body += (await peer.reader.readexactly(size + 2))[:-2]
    await peer.reader.readexactly(2)
    return body


class World:
    """A gateway with two providers of OpenAI's kind in front of scripts, and two consumers."""

    def __init__(self, gateway: Gateway, one: OpenAILike, two: OpenAILike, far: FarSide) -> None:
        self.gateway, self.one, self.two, self.far = gateway, one, two, far
        self.keys = [gateway.key, gateway.create_key("bob")["key"]]
        eventually(lambda: self.ask("GET", "/v1/models", key=1).status == 200)

    def client(self, number: int = 0, **more: Any) -> openai.OpenAI:
        return openai.OpenAI(api_key=self.keys[number], base_url=f"{self.gateway.url}/v1", max_retries=0, **more)

    def ask(self, method: str, path: str, body: Any = None, *, key: int = 0, **headers: str) -> Answer:
        return self.gateway.ask(body, path, method=method, key=self.keys[key], headers=headers)


@pytest.fixture(scope="module")
def world(make: Make, far_side: FarSide) -> World:
    one, two = OpenAILike("one"), OpenAILike("two")
    far_side.scripts |= {"one": one, "two": two}
    tables = "".join(
        provider(name, far_side.url(name), 'models = ["m", "gpt-6-sol"]', kind="openai") for name in ("one", "two")
    )
    return World(make(tables + '[routes.alias]\ntargets = [{provider = "one", model = "longer-name"}]\n'), one, two, far_side)


def form(request: Request) -> Form:
    boundary = request.headers[b"content-type"].partition(b"boundary=")[2].strip(b'"')
    read = Form(boundary)
    read.feed(request.body)
    assert read.ended
    return read


def test_files(world: World) -> None:
    """Upload, look, list, content, delete: by the SDK, at the first provider that serves files. Another consumer sees none."""
    with world.client() as client, world.client(1) as bob:
        made = client.files.create(file=("a.jsonl", b'{"a": 1}\n'), purpose="batch")
        assert made.id.startswith("file-one")
        assert b'{"a": 1}\n' in world.one.seen[-1].body
        assert client.files.retrieve(made.id).id == made.id
        assert client.files.content(made.id).content == b'{"custom_id": "1"}\n'
        for _ in range(3):
            bob.files.create(file=("b.jsonl", b"{}"), purpose="batch")
        late = client.files.create(file=("c.jsonl", b"{}"), purpose="batch")
        assert [one.id for one in client.files.list()] == [made.id, late.id]  # theirs are on the pages between
        assert len(list(bob.files.list())) == 3
        with pytest.raises(openai.NotFoundError):
            bob.files.retrieve(made.id)
        with pytest.raises(openai.NotFoundError):
            bob.files.delete(made.id)
        assert client.files.delete(made.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(made.id)


def test_the_header_says_where(world: World) -> None:
    """A file goes where the caller wants it; and what is asked of it afterwards goes there without being told."""
    with world.client(default_headers={"x-aigw-provider": "two"}) as client, world.client() as plain:
        made = client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
        assert made.id.startswith("file-two")
        assert plain.files.retrieve(made.id).id == made.id
        assert made.id in [one.id for one in client.files.list()]
        assert made.id not in [one.id for one in plain.files.list()]
        batch = plain.batches.create(completion_window="24h", endpoint="/v1/chat/completions", input_file_id=made.id)
        assert batch.id == "batch_two"
    wrong = world.ask("GET", "/v1/files", **{"x-aigw-provider": "nobody"})
    assert (wrong.status, wrong.headers["x-aigw-error"]) == (400, "caller_invalid_request")


def test_batches(world: World) -> None:
    """Made from one's own file only; its results are one's own; its tokens are metered once, when it is first seen complete."""
    with world.client() as client, world.client(1) as bob:
        file = client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
        with pytest.raises(openai.BadRequestError):
            bob.batches.create(completion_window="24h", endpoint="/v1/chat/completions", input_file_id=file.id)
        batch = client.batches.create(completion_window="24h", endpoint="/v1/chat/completions", input_file_id=file.id)
        assert batch.status == "validating"
        raw = client.batches.with_raw_response.retrieve(batch.id)
        seen = raw.parse()
        assert seen.output_file_id == "file-out1"
        record = world.gateway.record(raw.headers["x-request-id"])
        assert (record.input, record.output, record.service_tier) == (1000, 200, "batch")
        again = client.batches.with_raw_response.retrieve(batch.id)
        assert world.gateway.record(again.headers["x-request-id"]).input == 0
        assert client.files.content(seen.output_file_id).content
        with pytest.raises(openai.NotFoundError):
            bob.files.content(seen.output_file_id)
        with pytest.raises(openai.NotFoundError):
            bob.batches.cancel(batch.id)


def test_objects_outlive_a_restart(own: Any, far_side: FarSide) -> None:
    """Who made what is known to the next process."""
    far_side.scripts["kept"] = OpenAILike("kept")
    gateway = own(
        provider("other", far_side.url("kept"), kind="openai") + provider("kept", far_side.url("kept"), kind="openai")
    )
    gateway.key = gateway.create_key("me")["key"]
    gateway.start()
    with openai.OpenAI(
        api_key=gateway.key, base_url=gateway.url + "/v1", default_headers={"x-aigw-provider": "kept"}
    ) as client:
        made = client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
    gateway.stop()
    gateway.start()
    answer = gateway.ask(None, f"/v1/files/{made.id}", method="GET")
    assert (answer.status, answer.headers["x-aigw-provider"]) == (200, "kept")


def test_fine_tuning(world: World) -> None:
    """Jobs go where their training file is."""
    with world.client(default_headers={"x-aigw-provider": "two"}) as client, world.client() as plain:
        file = client.files.create(file=("a.jsonl", b"{}"), purpose="fine-tune")
        job = plain.fine_tuning.jobs.create(model="m", training_file=file.id)
        assert job.id == "ftjob-two"
        assert plain.fine_tuning.jobs.cancel(job.id).status == "cancelled"
        assert [one.id for one in plain.fine_tuning.jobs.list_events(job.id)] == ["ftevent-1"]
    with world.client(1) as bob, pytest.raises(openai.NotFoundError):
        bob.fine_tuning.jobs.retrieve(job.id)


def test_speech_to_text(world: World) -> None:
    """As JSON, as text, as a stream; each with its usage, and with the route's model in the form."""
    with world.client() as client:
        raw = client.audio.transcriptions.with_raw_response.create(model="one/m", file=("a.mp3", b"x" * 3000))
        assert raw.parse().text == "hello"
        record = world.gateway.record(raw.headers["x-request-id"])
        assert (record.operation, record.model, record.input, record.output) == ("transcriptions", "m", 14, 3)
        assert record.bytes_in > 3000
        assert form(world.one.seen[-1]).fields["model"] == "m"
        text = client.audio.transcriptions.create(model="alias", file=("a.mp3", b"x"), response_format="srt")
        assert "hello" in str(text)
        assert form(world.one.seen[-1]).fields["model"] == "longer-name"
        events = list(client.audio.transcriptions.create(model="two/m", file=("a.mp3", b"x"), stream=True))
        assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
        assert client.audio.translations.create(model="one/m", file=("a.mp3", b"x")).text == "hello"


def test_a_file_before_its_model(world: World) -> None:
    """As curl's users write forms; the body arrives as it was sent, but for the name."""
    sound = random.Random(7).randbytes(900_000)  # the same each time: chance alone writes half a boundary now and then
    body = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n' + sound
    body += b'\r\n--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nalias\r\n--B--\r\n'
    kind = {"content-type": "multipart/form-data; boundary=B"}
    assert world.ask("POST", "/v1/audio/transcriptions", body, **kind).status == 200
    assert world.one.seen[-1].body == body.replace(b"alias", b"longer-name")


def test_images(world: World) -> None:
    """Edits by form and by JSON, and variations."""
    with world.client() as client:
        raw = client.images.with_raw_response.edit(model="one/m", image=("a.png", b"png"), prompt="a hat", n=1)
        assert raw.parse().data is not None
        record = world.gateway.record(raw.headers["x-request-id"])
        assert (record.operation, record.input, record.output) == ("image_edits", 50, 100)
        assert client.images.create_variation(model="one/m", image=("a.png", b"png")).data
    asked = {"model": "one/m", "prompt": "a hat", "images": [{"image_url": "https://example.com/a.png"}]}
    assert world.ask("POST", "/v1/images/edits", asked).status == 200
    assert json.loads(world.one.seen[-1].body)["model"] == "m"


def test_videos(world: World) -> None:
    """Made by a model, then found by their ids; a remix is a new one."""
    with world.client() as client, world.client(1) as bob:
        video = client.videos.create(model="two/m", prompt="a hat")
        assert client.videos.retrieve(video.id).id == video.id
        assert client.videos.download_content(video.id).content == b"mp4 bytes"
        remixed = client.videos.remix(video.id, prompt="two hats")
        assert client.videos.retrieve(remixed.id).id == remixed.id != video.id
        with pytest.raises(openai.NotFoundError):
            bob.videos.retrieve(remixed.id)


def test_uploads_and_vector_stores(world: World) -> None:
    """Parts are passed on, the file that becomes of them is one's own, and so is a store; nobody adds another's file."""
    with world.client() as client, world.client(1) as bob:
        upload = client.uploads.create(bytes=10, filename="a", mime_type="text/plain", purpose="assistants")
        part = client.uploads.parts.create(upload.id, data=b"0123456789")
        done = client.uploads.complete(upload.id, part_ids=[part.id])
        assert done.file is not None
        store = client.vector_stores.create(name="s", file_ids=[done.file.id])
        assert client.vector_stores.files.retrieve(done.file.id, vector_store_id=store.id).id == done.file.id
        assert client.vector_stores.retrieve(store.id).id == store.id
        theirs = bob.files.create(file=("b", b"{}"), purpose="assistants")
        with pytest.raises(openai.BadRequestError):
            client.vector_stores.files.create(store.id, file_id=theirs.id)
        with pytest.raises(openai.NotFoundError):
            bob.vector_stores.retrieve(store.id)


BAD_FORMS = {
    "no model": (b'--B\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--B--\r\n', "B", 400),
    "two models": (b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\none/m\r\n' * 2 + b"--B--\r\n", "B", 400),
    "no form": (b"not a form at all", "B", 400),
    "cut off": (b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\none/m', "B", 400),
    "a long boundary": (b"--" + b"B" * 5_000, "B" * 900, 400),
    "no boundary": (b"--B--", "", 400),
    "a field of no name": (b"--B\r\nContent-Disposition: form-data\r\n\r\n1\r\n--B--\r\n", "B", 400),
    "a model beyond bounds": (b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\n' + b"m" * 10_000, "B", 400),
    "not UTF-8": (b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\n\xff\xfe\r\n--B--\r\n', "B", 400),
}


@pytest.mark.parametrize("name", BAD_FORMS)
def test_bad_forms(world: World, name: str) -> None:
    """Refused with a reason, before a provider hears of them."""
    body, boundary, status = BAD_FORMS[name]
    before = len(world.one.seen)
    kind = f"multipart/form-data; boundary={boundary}" if boundary else "multipart/form-data"
    answer = world.ask("POST", "/v1/audio/transcriptions", body, **{"content-type": kind})
    assert answer.status == status
    assert answer.headers["x-aigw-error"] == "caller_invalid_request"
    assert len(world.one.seen) == before


def test_a_second_model_behind_a_large_file(world: World) -> None:
    """What is routed by one name must not be worked on by another: the upload is broken off."""
    part = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\none/m\r\n'
    file = b'--B\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + bytes(3_000_000) + b"\r\n"
    kind = {"content-type": "multipart/form-data; boundary=B"}
    before = len(world.one.seen)
    answer = world.ask("POST", "/v1/audio/transcriptions", part + file + part + b"--B--\r\n", **kind)
    assert (answer.status, answer.error["param"]) == (400, "model")
    assert len(world.one.seen) == before


def test_raw(world: World) -> None:
    """Any path of a provider's: its method, query and body as they are, our key in place of the caller's, its usage metered."""
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        body = {"model": "m", "odd": 1.0} if method != "GET" else None
        answer = world.ask(method, "/one/v1/assistants?a=1&a=2&key=secret", body)
        assert (answer.status, answer.json["method"], answer.json["query"]) == (200, method, "a=1&a=2")
        seen = world.one.seen[-1]
        assert seen.headers[b"authorization"] == b"Bearer far.one.1.0123456789abcdef"
        assert seen.body == (json.dumps(body).encode() if body else b"")
        record = world.gateway.record(answer.id)
        assert (record.operation, record.provider, record.input, record.output) == ("raw", "one", 5, 2)
    assert world.ask("POST", "/one/assistants", {}).status == 200  # below its base URL, with or without the version
    stream = world.ask("POST", "/one/v1/stream", {"model": "m", "stream": True})
    assert stream.events[-1] == b"data: [DONE]"
    assert world.gateway.record(stream.id).output == 4
    missing = world.ask("GET", "/one/v1/nothing")
    assert (missing.status, missing.error["message"]) == (404, "No such thing")
    assert world.gateway.ask({}, "/one/v1/assistants", key="").status == 401


@pytest.mark.parametrize(
    "path",
    [
        "/one/../two/v1/assistants",
        "/one/v1/../../two/v1/assistants",
        "/one/v1/%2e%2e/%2e%2e/two/v1/assistants",
        "/one/v1/..%2f..%2ftwo",
        "/one/v1/%252e%252e/x",
        "/one//evil.example/v1",
        "/one/http://evil.example/v1",
        "/one/v1/a\\..\\b",
        "/one/v1/..;/two",
        "/one/v1/x%00y",
        "/one/v1/x%0d%0aHost:%20evil",
        "/nobody/v1/assistants",
        "/one/v1/files",  # everybody's: only the path without the name knows whose
        "/one/v1/batches/batch_1",
        "/demo",
        "/one/",
    ],
)
def test_raw_paths_lead_nowhere_else(world: World, path: str) -> None:
    """Whatever is tried, nothing outside the provider's own prefix is asked for."""
    before = len(world.one.seen) + len(world.two.seen)
    raw = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.keys[0]}\r\nConnection: close\r\n\r\n".encode()
    (answer,) = parse(world.gateway.exchange(raw))
    assert answer.status in (400, 404)
    assert len(world.one.seen) + len(world.two.seen) == before


def test_billing(world: World) -> None:
    """What chat applications read, and what the consumer used: its own, nobody else's."""
    limits = world.ask("GET", "/v1/dashboard/billing/subscription").json
    assert limits["hard_limit_usd"] == 100_000_000
    seen = world.ask("GET", "/v1/dashboard/billing/usage?start_date=2020-01-01&end_date=2090-01-01").json
    assert seen["object"] == "list"
    assert seen["total_usage"] >= 0
    mine = eventually(lambda: (found := world.ask("GET", "/v1/usage?by=operation").json)["total"]["requests"] and found)
    assert mine["consumer"] == "me"
    assert world.ask("GET", "/v1/usage?by=consumer").status == 400
    assert world.ask("GET", "/v1/usage?since=yesterday").status == 400
    assert world.gateway.ask(None, "/v1/usage", method="GET", key="").status == 401


# --- large ones --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def swallowing(pause: float = 0.0, refuse: bytes = b"") -> Iterator[tuple[int, list[int]]]:
    """A server in a thread that counts the bytes of one upload after another. *refuse*: it answers so before it has read."""
    sizes: list[int] = []
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)

    def serve() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            with raw, contextlib.suppress(OSError):
                raw.settimeout(20)
                data = b""
                while b"\r\n\r\n" not in data:
                    data += raw.recv(65536)
                head, _, rest = data.partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                sizes.append(len(rest))
                if refuse:
                    raw.sendall(refuse)
                time.sleep(pause)
                while sizes[-1] < length:
                    block = raw.recv(65536)
                    if not block:
                        break
                    sizes[-1] += len(block)
                if not refuse:
                    raw.sendall(answer(200, {"id": "file-big", "object": "file"}))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], sizes
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def memory(gateway: Gateway) -> int:
    """KiB that the process has ever held at once."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def upload(gateway: Gateway, size: int) -> Answer:
    """A file of *size* bytes, sent in pieces of a megabyte."""
    head, end = b'--B\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n', b"\r\n--B--\r\n"
    length = len(head) + size + len(end)
    fields = f"Authorization: Bearer {gateway.key}\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: {length}"
    with gateway.connect(60) as raw:
        with contextlib.suppress(OSError):
            raw.sendall(f"POST /v1/files HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n".encode() + head)
            block = bytes(1024 * 1024)
            for _ in range(size // len(block)):
                raw.sendall(block)
            raw.sendall(end)
        data = b""
        while b"\r\n\r\n" not in data or not data.rpartition(b"\r\n\r\n")[2]:
            block = raw.recv(65536)
            if not block:
                break
            data += block
    return next(parse(data))


def test_memory_of_a_large_upload(own: Any) -> None:
    """200 MB go through, and the process has never held more than 2 MB of them, though the provider is slow to read."""
    with swallowing(pause=1.0) as (port, sizes):
        gateway = own(provider("far", f"http://127.0.0.1:{port}/v1", kind="openai"))
        gateway.key = gateway.create_key("me")["key"]
        gateway.start()
        assert upload(gateway, 4 * 1024 * 1024).status == 200  # what is loaded with the first one
        before = memory(gateway)
        found = upload(gateway, 200 * 1024 * 1024)
        assert (found.status, found.json["id"]) == (200, "file-big")
        assert sizes[-1] > 200 * 1024 * 1024
        assert memory(gateway) - before < 2500
        assert gateway.record(found.id).bytes_in == sizes[-1]


def test_a_refusal_before_the_end(own: Any) -> None:
    """A provider that refuses at once is heard, and the upload is not sent a second time."""
    tired = answer(401, {"error": {"message": "no", "code": "invalid_api_key"}}, "connection: close")
    with swallowing(refuse=tired) as (port, sizes):
        gateway = own(provider("far", f"http://127.0.0.1:{port}/v1", keys=2, kind="openai"))
        gateway.key = gateway.create_key("me")["key"]
        gateway.start()
        found = upload(gateway, 20 * 1024 * 1024)
        assert (found.status, found.headers["x-aigw-error"]) == (502, "provider_credentials_invalid")
        assert len(sizes) == 1


def test_too_large(own: Any, far_side: FarSide) -> None:
    """More than the operator allows is refused by its length, unread."""
    gateway = own(provider("far", far_side.url("one"), kind="openai"), server="max_upload = 1048576")
    gateway.key = gateway.create_key("me")["key"]
    gateway.start()
    found = upload(gateway, 2 * 1024 * 1024)
    assert (found.status, found.headers["x-aigw-error"]) == (413, "caller_body_too_large")


def test_a_sender_that_breaks_off(world: World) -> None:
    """The provider must not take half a file for all of it."""
    before = len(world.one.seen)
    fields = (
        f"Authorization: Bearer {world.keys[0]}\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: 9000000"
    )
    with world.gateway.connect() as raw:
        raw.sendall(f"POST /v1/files HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n".encode() + bytes(2_000_000))
        time.sleep(0.2)
    eventually(lambda: world.far.closed[""])  # in the middle of its first request
    assert len(world.one.seen) == before
