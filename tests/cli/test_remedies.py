"""The next command to try."""

from __future__ import annotations

import msgspec
import pytest

from aigw.cli.main import COMMANDS
from aigw.cli.remedies import NEXT, next_command
from aigw.errors import CODES
from aigw.exchange import Attempt, Record


def test_every_code_has_one() -> None:
    """Of the closed list, each; and each is a command that exists."""
    assert set(NEXT) == set(CODES)
    for command in filter(None, NEXT.values()):
        words = command.split()
        assert words[0] == "aigw"
        assert words[1] in COMMANDS


@pytest.mark.parametrize("model", ["x; rm -rf ~", "-m", "", "a b", "$(id)", "ü"])
def test_names_that_a_shell_would_run_are_left_out(model: str) -> None:
    """Callers choose names; what is printed here is typed by an operator."""
    refused = Record(id="1", at=0, error="caller_unsupported", requested_model=model, consumer=model)
    assert next_command(refused, None) == "aigw explain"
    assert next_command(msgspec.structs.replace(refused, error="policy_forbidden"), None) == "aigw keys show"


def test_names_are_filled_in() -> None:
    """From the record, else from its last attempt."""
    record = Record(id="1", at=0, error="provider_bad_response")
    assert next_command(record, Attempt(provider="openai")) == "aigw providers test openai"
    assert next_command(Record(id="1", at=0), None) == ""
    assert next_command(Record(id="1", at=0, error="policy_key_revoked", consumer="alice"), None) == "aigw keys create alice"
