"""What a newcomer runs first: the same question by curl, OpenAI's SDK and Anthropic's, with the real address and key."""

from __future__ import annotations

import json
import shlex
from typing import NamedTuple

PLACEHOLDER = "sk-aigw-..."
"""Stands for a key that was shown before, and is kept nowhere."""


class Snippet(NamedTuple):
    """`text` runs as it is, in `language` ("bash" or "python")."""

    title: str
    language: str
    text: str


def snippets(base_url: str, key: str, chat: str, messages: str) -> list[Snippet]:
    """For a gateway at *base_url* (with /v1). *chat* and *messages* are models that it serves by OpenAI's and by Anthropic's
    API; "" where it serves none."""
    found = []
    root = base_url.removesuffix("/v1")
    if chat:
        body = json.dumps({"model": chat, "messages": [{"role": "user", "content": "Hello"}]}, ensure_ascii=False)
        found.append(Snippet("curl", "bash", _curl(f"{base_url}/chat/completions", key, body)))
        found.append(
            Snippet(
                "Python, openai",
                "python",
                "from openai import OpenAI\n\n"
                "client = OpenAI(\n"
                f"    base_url={_quoted(base_url)},\n"
                f"    api_key={_quoted(key)},\n"
                ")\n"
                "answer = client.chat.completions.create(\n"
                f"    model={_quoted(chat)},\n"
                '    messages=[{"role": "user", "content": "Hello"}],\n'
                ")\n"
                "print(answer.choices[0].message.content)",
            )
        )
    elif messages:
        body = json.dumps(
            {"model": messages, "max_tokens": 1024, "messages": [{"role": "user", "content": "Hello"}]}, ensure_ascii=False
        )
        found.append(Snippet("curl", "bash", _curl(f"{base_url}/messages", key, body)))
    if messages:
        found.append(
            Snippet(
                "Python, anthropic",
                "python",
                "from anthropic import Anthropic\n\n"
                "client = Anthropic(\n"
                f"    base_url={_quoted(root)},\n"
                f"    auth_token={_quoted(key)},\n"
                ")\n"
                "answer = client.messages.create(\n"
                f"    model={_quoted(messages)},\n"
                "    max_tokens=1024,\n"
                '    messages=[{"role": "user", "content": "Hello"}],\n'
                ")\n"
                "print(answer.content[-1].text)",
            )
        )
    return found


def _curl(url: str, key: str, body: str) -> str:
    return (
        f"curl {shlex.quote(url)} \\\n"
        f"  -H {shlex.quote(f'Authorization: Bearer {key}')} \\\n"
        f"  -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(body)}"
    )


def _quoted(text: str) -> str:
    """A Python string in double quotes."""
    return json.dumps(text, ensure_ascii=False)
