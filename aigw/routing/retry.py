"""May this exchange try again? A pure function of what went wrong and what was tried."""

from __future__ import annotations

from aigw.errors import UpstreamError

MAX_ATTEMPTS = 6
"""Attempts one exchange may make when its route does not say: the first and five more."""

SECOND_TRY_PAUSE = 0.25
"""Seconds before the only deployment there is, is tried a second time: most connection errors and restarts are over by then,
and no person notices."""


def may_retry(error: UpstreamError, *, safe: bool, timeouts: int) -> bool:
    """Whether any other try is allowed after *error*. *safe*: the operation may reach a provider twice; *timeouts*: how many
    attempts of this exchange timed out after the body had gone out, this one included.

    Connection errors, 429, 503, 529 and other 5xx: yes. A timeout after the body went out, once, and both costs are recorded.
    What is not safe to repeat (images, audio) never, once a provider may have begun to work on it.
    """
    if not error.may_retry:
        return False
    if not error.sent or error.upstream_status is not None:
        return True  # nothing reached a provider, or it told us itself that it failed
    if not safe:
        return False
    return error.code != "provider_timeout" or timeouts <= 1
