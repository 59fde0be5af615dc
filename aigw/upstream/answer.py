"""A short answer from a provider, kept whole: what a list of models or a key's check comes back as."""

from __future__ import annotations

from aigw.exchange import Flow, Headers


class WholeAnswer:
    """A `Receiver`. An answer of more than *most* bytes is `cut`: its connection is closed, the rest is not wanted."""

    started = False  # it is read when it is whole

    def __init__(self, most: int) -> None:
        self.status = 0
        self.headers: Headers = []
        self.cut = False
        self._most = most
        self._blocks: list[bytes] = []
        self._size = 0
        self._flow: Flow | None = None

    def head(self, status: int, headers: Headers, flow: Flow) -> None:
        self.status, self.headers, self._flow = status, headers, flow

    def feed(self, block: bytes) -> None:
        self._size += len(block)
        if self._size > self._most:
            self.cut = True
            if self._flow is not None:
                self._flow.stop()
        else:
            self._blocks.append(block)

    @property
    def body(self) -> bytes:
        return b"".join(self._blocks)
