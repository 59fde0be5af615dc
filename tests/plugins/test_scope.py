"""Whom a plugin concerns."""

from __future__ import annotations

from aigw.plugins.scope import Scope


def test_nothing_said_is_everybody() -> None:
    assert Scope().everything
    assert Scope().welcomes("", "", {})
    assert Scope().covers("r", "m")
    assert not Scope(tags=("a=b",)).everything


def test_each_list_must_hold() -> None:
    scope = Scope(
        consumers=("ci-*", "bob"), groups=("eng",), tags=("team=core", "team=web"), routes=("fast",), models=("gpt-*",)
    )
    assert scope.welcomes("ci-1", "eng", {"team": "web", "x": "y"})
    assert not scope.welcomes("ci-1", "ops", {"team": "web"})
    assert not scope.welcomes("al", "eng", {"team": "web"})
    assert not scope.welcomes("bob", "eng", {})
    assert scope.covers("fast", "gpt-5")
    assert not scope.covers("fast", "claude")
    assert not scope.covers("slow", "gpt-5")


def test_case_counts() -> None:
    """As it does in names of consumers."""
    assert not Scope(consumers=("Bob",)).welcomes("bob", "", {})
