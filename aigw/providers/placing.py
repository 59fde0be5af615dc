"""Where a request goes that names no model and nothing that was made before: an upload, a list."""

from __future__ import annotations

from collections.abc import Mapping

from aigw.errors import CallerError
from aigw.protocols.operations import OPERATIONS, Operation
from aigw.providers import catalog
from aigw.providers.base import Provider

HEADER = "x-aigw-provider"
"""By which a caller says which provider it wants."""


def place(providers: Mapping[str, Provider], operation: Operation, asked: str) -> Provider:
    """The provider that was *asked* for by name; else the first one of the config that is known to serve *operation*; else the
    first that may. Raises CallerError."""
    if asked:
        found = providers.get(asked)
        if found is None:
            raise CallerError("caller_invalid_request", f"The header {HEADER} names no provider that is configured here.")
        if found.serving(operation, "") is not operation:
            raise CallerError("caller_unsupported", f"The provider {asked!r} does not serve {operation.path!r}.")
        return found
    serving = [one for one in providers.values() if one.serving(operation, "") is operation]
    if not serving:
        raise CallerError("caller_unsupported", f"No provider that is configured here serves {operation.path!r}.")
    above = OPERATIONS[operation.below or operation.name].name
    return next((one for one in serving if above in catalog.row(one.kind).operations), serving[0])
