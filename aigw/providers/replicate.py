"""Replicate: an answer that takes long is a prediction, which is asked for again until it is ready."""

from __future__ import annotations

import re

import msgspec

from aigw.deployment import ProviderKey
from aigw.exchange import UpstreamRequest
from aigw.protocols.operations import Operation
from aigw.providers.compatible import CompatibleProvider, Endpoint


class _Prediction(msgspec.Struct):
    id: str = ""
    status: str = ""


class Replicate(CompatibleProvider):
    """Implements `Stepper`, too. Made by `compatible.build`."""

    def next_step(self, operation: Operation, status: int, body: bytes, key: ProviderKey | None) -> UpstreamRequest | None:
        endpoint = self._endpoints.get(operation.name)
        identity = unfinished(body) if 200 <= status < 300 else ""
        if endpoint is None or not identity:
            return None
        # by its id, at the address that we were given: the URL in the answer is a stranger's word
        root = endpoint.path.partition("/models/")[0]
        return self._get(Endpoint(endpoint.origin, f"{root}/predictions/{identity}"), key)


def unfinished(body: bytes) -> str:
    """The id of a prediction that still runs; "" of every other answer."""
    try:
        said = msgspec.json.decode(body, type=_Prediction)
    except (msgspec.DecodeError, RecursionError):
        return ""
    return said.id if said.status in ("starting", "processing") and re.fullmatch(r"[A-Za-z0-9]{1,64}", said.id) else ""
