"""The contract of a provider is documented, and what we build keeps it."""

from __future__ import annotations

import inspect

from aigw.config import schema
from aigw.providers import base, compatible


def test_every_member_says_what_it_is_for() -> None:
    """Whoever writes an adapter reads this page alone."""
    members = {name: member for name, member in vars(base.Provider).items() if not name.startswith("_")}
    assert members.keys() >= {
        "name",
        "kind",
        "dialect_for",
        "prepare",
        "judge",
        "error_in_body",
        "models_request",
        "read_models",
    }
    assert all(inspect.getdoc(member) for member in members.values())


def test_what_is_built_keeps_the_contract() -> None:
    """Every member, under the same name and with the same parameters."""
    provider: base.Provider = compatible.build("demo", schema.Provider(), schema.Upstream(), [])
    for name, member in vars(base.Provider).items():
        if name.startswith("_"):
            continue
        assert hasattr(provider, name)
        if inspect.isfunction(member):
            wanted = list(inspect.signature(member).parameters)[1:]
            assert list(inspect.signature(getattr(provider, name)).parameters) == wanted
