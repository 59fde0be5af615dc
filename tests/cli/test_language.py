"""Which language, by the locale."""

from __future__ import annotations

import io
import sys

import pytest

from aigw.cli import language


@pytest.fixture
def locale(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    return monkeypatch


@pytest.mark.parametrize("name", ["zh_CN.UTF-8", "zh_TW.UTF-8", "zh", "zh-Hans", "ZH_CN.utf8"])
def test_a_chinese_locale_is_answered_in_chinese(locale: pytest.MonkeyPatch, name: str) -> None:
    """Every way to write it is understood."""
    locale.setenv("LANG", name)
    assert language.say("yes", "是") == "是"
    assert not language.is_ascii()


@pytest.mark.parametrize("name", ["", "C", "POSIX", "en_US.UTF-8", "de_DE.UTF-8", "zhx_XX.UTF-8"])
def test_everybody_else_is_answered_in_english(locale: pytest.MonkeyPatch, name: str) -> None:
    """LANG=C, no LANG and other languages mean English."""
    locale.setenv("LANG", name)
    assert language.say("yes", "是") == "yes"


def test_lc_all_beats_lc_messages_beats_lang(locale: pytest.MonkeyPatch) -> None:
    """The order is POSIX's; an empty variable counts as none."""
    locale.setenv("LANG", "zh_CN.UTF-8")
    locale.setenv("LC_MESSAGES", "en_US.UTF-8")
    assert not language.is_chinese()
    locale.setenv("LC_ALL", "zh_CN.UTF-8")
    assert language.is_chinese()
    locale.setenv("LC_ALL", "")
    assert not language.is_chinese()


def test_a_terminal_without_chinese_characters_gets_english(locale: pytest.MonkeyPatch) -> None:
    """Escapes instead of characters would help nobody."""
    locale.setenv("LANG", "zh_CN")
    locale.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert language.say("yes", "是") == "yes"
    assert language.is_ascii()


@pytest.mark.parametrize(
    ("name", "ascii_only"), [("C", True), ("", True), ("en_US", True), ("en_US.UTF-8", False), ("C.utf8", False)]
)
def test_only_a_utf8_locale_is_drawn_with_more_than_ascii(locale: pytest.MonkeyPatch, name: str, ascii_only: bool) -> None:
    """Where nothing promises UTF-8, ASCII is drawn."""
    locale.setenv("LANG", name)
    assert language.is_ascii() is ascii_only
