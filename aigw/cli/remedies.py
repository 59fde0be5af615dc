"""The next command to try, for each error code: what an operator would type."""

from __future__ import annotations

from aigw.exchange import Attempt, Record

NEXT: dict[str, str] = {
    "caller_invalid_json": "",
    "caller_invalid_request": "",
    "caller_unsupported": "aigw explain -m {model}",
    "caller_model_not_found": "aigw models",
    "caller_object_not_found": "aigw logs --consumer {consumer}",
    "caller_path_not_found": "aigw connect",
    "caller_method_not_allowed": "aigw connect",
    "caller_timeout": "aigw config show",
    "caller_body_too_large": "aigw config edit",
    "caller_unsupported_media_type": "",
    "caller_expectation_failed": "",
    "caller_closed": "aigw logs --slow 10s",
    "policy_key_missing": "aigw keys create NAME",
    "policy_key_invalid": "aigw keys list --all",
    "policy_key_revoked": "aigw keys create {consumer}",
    "policy_key_expired": "aigw keys create {consumer}",
    "policy_forbidden": "aigw keys show {consumer}",
    "policy_rate_limited": "aigw keys show {consumer}",
    "policy_concurrency_limited": "aigw keys show {consumer}",
    "policy_budget_exhausted": "aigw stats --consumer {consumer} --since 30d",
    "policy_request_too_large": "aigw keys show {consumer}",
    "policy_price_unknown": "aigw prices --unknown",
    "policy_plugin_refused": "aigw plugins",
    "policy_content_blocked": "aigw plugins",
    "provider_unreachable": "aigw doctor",
    "provider_connection_lost": "aigw providers test {provider}",
    "provider_bad_response": "aigw providers test {provider}",
    "provider_error": "aigw logs --errors --provider {provider}",
    "provider_rejected": "",
    "provider_timeout": "aigw routes",
    "provider_rate_limited": "aigw providers --keys",
    "provider_overloaded": "aigw routes",
    "provider_credentials_invalid": "aigw providers test {provider}",
    "provider_credentials_exhausted": "aigw providers --keys",
    "provider_unavailable": "aigw providers test {provider}",
    "gateway_internal": "aigw doctor",
    "gateway_plugin_failed": "aigw plugins",
    "gateway_overloaded": "aigw status",
    "gateway_draining": "aigw status",
    "gateway_no_provider": "aigw explain -m {model}",
}
"""By our codes. "": the request itself has to be changed, and its message says how."""


def next_command(record: Record, last: Attempt | None) -> str:
    """What to type about *record*, whose last attempt was *last*; "" when nothing went wrong or no command helps."""
    command = NEXT.get(record.error, "")
    provider = record.provider or (last.provider if last is not None else "")
    names = {"model": record.requested_model, "consumer": record.consumer, "provider": provider}
    for name, value in names.items():
        if f"{{{name}}}" in command and not _plain(value):
            return command.partition(" -")[0].partition(" {")[0]
    return command.format(**names) if command else ""


def _plain(word: str) -> bool:
    """Whether a shell takes it as one harmless word: callers choose models' names."""
    return bool(word) and word.isascii() and all(one.isalnum() or one in "._/:@-" for one in word) and word[0] != "-"
