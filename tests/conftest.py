"""What every test may rely on."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest

from aigw.telemetry.log import OTHERS
from tests.servers import postgres, postgres_server, redis, redis_server  # noqa: F401 - fixtures for all

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job: those who are interrupted here would not be
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """A server sets up the loggers of its process; what one test's server did must not silence the next one's."""
    raises = logging.raiseExceptions
    before = [(one, one.level, one.propagate, one.handlers[:]) for one in map(logging.getLogger, ("aigw", *OTHERS))]
    yield
    logging.raiseExceptions = raises
    for one, level, propagate, handlers in before:
        one.setLevel(level)
        one.propagate, one.handlers[:] = propagate, handlers
