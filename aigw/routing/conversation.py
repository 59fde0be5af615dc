"""Which conversation a request belongs to: what stays the same in all of its turns.

APIs have no name for it. But each turn repeats the ones before, so the instructions and everything up to the first thing the
user said are the same in all of them, and rarely the same in two conversations. Where a request names its conversation, that is
taken.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec


class _Talk(msgspec.Struct, gc=False):
    messages: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()
    instructions: msgspec.Raw = msgspec.Raw()
    conversation: msgspec.Raw = msgspec.Raw()
    prompt_cache_key: msgspec.Raw = msgspec.Raw()


class _Said(msgspec.Struct, gc=False):
    role: str = ""


_talk = msgspec.json.Decoder(_Talk).decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_said = msgspec.json.Decoder(_Said).decode

_NOTHING = (b"", b"null", b'""')


def conversation(body: bytes) -> bytes:
    """A key of the conversation that the request *body* is a turn of, 16 bytes; b"" when nothing tells."""
    try:
        talk = _talk(body)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return b""
    digest = blake2b(digest_size=16)
    for named in (talk.conversation, talk.prompt_cache_key):
        if bytes(named) not in _NOTHING:
            digest.update(bytes(named))
            return digest.digest()
    turns = next((one for one in (talk.messages, talk.input, talk.prompt) if bytes(one)), None)
    if turns is None:
        return b""
    digest.update(bytes(talk.system))
    digest.update(bytes(talk.instructions))
    for part in _beginning(turns):
        digest.update(part)
    return digest.digest()


def _beginning(turns: msgspec.Raw) -> list[bytes]:
    """The messages up to the user's first one; all there is, where there are no messages."""
    try:
        messages = _list(turns)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return [bytes(turns)]
    found = []
    for message in messages:
        found.append(bytes(message))
        try:
            if _said(message).role == "user":
                break
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            continue
    return found
