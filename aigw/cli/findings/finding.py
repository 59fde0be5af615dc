"""What the doctor says about one thing: how bad it is, what it means, and what to type next."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from aigw.cli.language import say


class Level(StrEnum):
    """How bad. Only a problem makes `aigw doctor` end with 1."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Words(NamedTuple):
    """One text for people, in both languages."""

    english: str = ""
    chinese: str = ""

    def __str__(self) -> str:
        return say(self.english, self.chinese or self.english)


class Finding(NamedTuple):
    """`code` is stable, and one of CODES. `what` was found; what it `means`, unless that is plain; `next`, the command that
    helps, "" where there is none."""

    code: str
    level: Level
    what: Words
    means: Words = Words()
    next: str = ""

    def plain(self) -> dict[str, Any]:
        """For programs: English."""
        return {
            "code": self.code,
            "level": self.level.value,
            "what": self.what.english,
            "means": self.means.english or None,
            "next": self.next or None,
        }


def ok(code: str, english: str, chinese: str) -> Finding:
    return Finding(code, Level.OK, Words(english, chinese))


def warning(code: str, what: tuple[str, str], means: tuple[str, str] = ("", ""), next: str = "") -> Finding:  # noqa: A002
    return Finding(code, Level.WARNING, Words(*what), Words(*means), next)


def problem(code: str, what: tuple[str, str], means: tuple[str, str] = ("", ""), next: str = "") -> Finding:  # noqa: A002
    return Finding(code, Level.PROBLEM, Words(*what), Words(*means), next)


CODES = frozenset(
    {
        # the config
        "config_ok",
        "config_missing",
        "config_wrong",
        "config_doubtful",
        "config_open",
        "key_file_open",
        "no_provider",
        # what is installed
        "installed_ok",
        "installed_changed",
        "installed_withdrawn",
        "server_odd",
        # providers
        "provider_ok",
        "provider_unchecked",
        "provider_unknown",
        "key_wrong",
        "key_no_credit",
        "key_limited",
        "url_wrong",
        # the way to them
        "host_unknown",
        "provider_down",
        "provider_silent",
        "proxy_login",
        "proxy_refuses",
        "proxy_down",
        "proxy_unknown",
        "proxy_far_side",
        "certificate_unknown",
        "certificate_name",
        "certificate_date",
        "tls_failed",
        "ca_file_wrong",
        # the clock
        "clock_ok",
        "clock_wrong",
        # the server
        "server_ok",
        "server_none",
        "server_not_ready",
        "server_unasked",
        "server_other_config",
        "server_old_config",
        "server_other_version",
        "port_free",
        "port_held",
        "port_forbidden",
        "port_impossible",
        "port_changed",
        # what is kept
        "data_ok",
        "data_open",
        "data_unwritable",
        "disk_full",
        "disk_low",
        "database_ok",
        "database_none",
        "database_newer",
        "database_older",
        "database_foreign",
        "database_damaged",
        "database_locked",
        "database_unreadable",
        "database_unreachable",
        "database_away",
        "journal_full",
        "journal_waiting",
        "journal_damaged",
        "records_lost",
        "consumers_ok",
        "consumers_none",
        # this machine
        "command_ok",
        "command_missing",
        "command_other",
        "locale_ok",
        "locale_narrow",
        "locale_missing",
        "files_ok",
        "files_few",
    }
)
"""Every code, closed: docs/troubleshooting.md has each that is not ok."""
