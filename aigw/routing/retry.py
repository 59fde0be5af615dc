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
    What is not safe to repeat (images, audio) never, once a provider may have begun to work on it: an error of its own says
    that it did not, but a 504 comes from a proxy that gave up waiting, and a 200 that is no answer may have been billed.
    """
    if not error.may_retry:
        return False
    if not error.sent:
        return True  # nothing reached a provider
    told = error.upstream_status is not None
    if not safe:
        return told and error.code not in ("provider_timeout", "provider_bad_response")
    return told or error.code != "provider_timeout" or timeouts <= 1
