"""A port to propose: free, and nobody else's habit."""

from __future__ import annotations

import errno

from aigw.cli.ports import refusal

ADMIN = 8081
"""Where the operator's listener goes by itself."""


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now. A host that is none of this machine's says nothing against the port."""
    hosts = (host, "::1") if host == "127.0.0.1" else (host,)  # as serve does
    refusals = (refusal(one, port) for one in hosts)
    return not any(error.errno in (errno.EADDRINUSE, errno.EACCES) for error in refusals if error is not None)


def next_free(port: int, host: str = "127.0.0.1") -> int:
    """The first free port above *port*, but ADMIN; 0 when there is none."""
    return next((one for one in range(port + 1, 65536) if one != ADMIN and is_free(one, host)), 0)
