"""Which exchanges a plugin is asked about."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import msgspec


class Scope(msgspec.Struct, frozen=True):
    """Lists of names or globs; an empty one says nothing, of the others each must hold. `tags` are "name=value"."""

    routes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    consumers: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def everything(self) -> bool:
        return not (self.routes or self.models or self.consumers or self.groups or self.tags)

    def welcomes(self, consumer: str, group: str, tags: Mapping[str, str]) -> bool:
        """Whether it may concern this consumer, as far as is known before a route is."""
        return (
            _holds(self.consumers, consumer)
            and _holds(self.groups, group)
            and (not self.tags or any(_holds(self.tags, f"{name}={value}") for name, value in tags.items()))
        )

    def covers(self, route: str, model: str) -> bool:
        """Whether it concerns what is asked for."""
        return _holds(self.routes, route) and _holds(self.models, model)


def _holds(patterns: tuple[str, ...], name: str) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
