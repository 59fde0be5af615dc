"""Every shape that is registered is what the contract says."""

from __future__ import annotations

import pytest

from aigw.protocols import DIALECTS
from aigw.protocols.operations import OPERATIONS
from aigw.protocols.translation import TRANSLATORS, translator

DOORS = [name for name in TRANSLATORS if name in OPERATIONS and OPERATIONS[name].door]


@pytest.mark.parametrize("name", TRANSLATORS)
def test_each_is_found_by_its_operation(name: str) -> None:
    shape = translator(name)
    assert name in OPERATIONS
    assert OPERATIONS[name].family, "only what has a family is translated"
    assert shape is translator(name), "stateless: one is enough"
    callers = ("spelling",) if name in DOORS else ()
    for member in ("name", "dialect", *callers, "content_type", "streams"):
        assert hasattr(shape, member), member


@pytest.mark.parametrize("name", DOORS)
def test_those_that_callers_speak_have_errors_of_their_own(name: str) -> None:
    assert translator(name).dialect in DIALECTS


def test_a_shape_that_is_not_there_says_so() -> None:
    with pytest.raises(KeyError):
        translator("speech")


def test_chat_comes_before_responses() -> None:
    """A provider that has both is asked in the one that more servers have whole."""
    order = list(TRANSLATORS)
    assert order.index("chat") < order.index("responses")
