"""DeepL's translation as a chat: what the user says last is the text, its translation the answer.

The target language is the model's name ("deepl/ZH", "deepl-zh", "en-GB"), else the setting `target_lang`. Facts:
developers.deepl.com as of 2026; it is paid by characters and reports no tokens.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

import msgspec

from aigw.canonical import Answer, Choice, Losses, Request, Text
from aigw.errors import CallerError
from aigw.protocols.dialect import Told, decode_leniently
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.plain import last_words, lose_all_but, refuse_tools

SAID: frozenset[str] = frozenset()
_WHO = "DeepL"
_LANGUAGE = re.compile(r"(?:deepl-)?([a-z]{2}(?:-[a-z0-9]{2,4})?)", re.IGNORECASE | re.ASCII)
_OWN_EXTRAS = ("source_lang", "formality", "context", "glossary_id", "model_type", "preserve_formatting")
"""DeepL's own words, which a caller may send as they are."""

_encode = msgspec.json.encode


class DeepL:
    """`/v2/translate`. Implements `Shape`."""

    name = "deepl"
    dialect = "deepl"
    content_type = b"application/json"
    streams = False

    def render_request(self, request: Request, toward: Toward, losses: Losses) -> bytes:
        refuse_tools(request, losses, _WHO)
        text = last_words(request, losses, _WHO)
        if sum(message.role == "user" for message in request.messages) > 1 or any(
            message.role == "assistant" for message in request.messages
        ):
            losses.add("messages")  # what was said before is not translated again
        if any(message.role in ("system", "developer") for message in request.messages):
            losses.add("messages.system")
        body: dict[str, Any] = {"text": [text], "target_lang": _language(toward)}
        body |= {name: request.extras[name] for name in _OWN_EXTRAS if name in request.extras}
        lose_all_but(request, losses, SAID, taken=_OWN_EXTRAS)
        return _encode(body)

    def parse_answer(self, body: bytes) -> tuple[Answer, Told]:
        rows = decode_leniently(body).get("translations")
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise ValueError("an answer without translations")
        texts = [row.get("text") for row in rows]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a translation without text")
        return Answer(choices=[Choice([Text("\n".join(map(str, texts)))])]), Told(finish_reason="stop")

    def parser(self) -> NoReturn:
        raise NotImplementedError("DeepL does not stream")


def _language(toward: Toward) -> str:
    name = toward.model.rpartition("/")[2]
    match = _LANGUAGE.fullmatch(name)
    found = match[1] if match else toward.settings.get("target_lang", "")
    if not found:
        raise CallerError(
            "caller_unsupported", "No language to translate into: name it as the model, such as deepl/ZH.", param="model"
        )
    return found.upper()
