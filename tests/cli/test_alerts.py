"""`aigw alerts` against a receiver on loopback."""

from __future__ import annotations

import json

from tests.cli.conftest import CommandLine
from tests.cli.emulated import Emulated, Reply


def config(url: str) -> str:
    return (
        f'[alerts.ops]\nurl = "{url}/hook/0123456789abcdef"\nevents = ["keys"]\n'
        f'[alerts.team]\nkind = "slack"\nurl = "http://127.0.0.1:9/services/0123456789abcdef"\n'
    )


def test_the_list(aigw: CommandLine) -> None:
    """What each is and hears, and never where it is told; nothing configured says how."""
    told = aigw("alerts")
    assert (told.returncode, told.stdout) == (0, "")
    assert "[alerts.ops]" in told.stderr
    aigw.config.write_text(config("http://127.0.0.1:9"))
    listed = aigw("alerts")
    assert "ops" in listed.stdout
    assert "slack" in listed.stdout
    assert "0123456789abcdef" not in listed.stdout + listed.stderr
    found = json.loads(aigw("alerts", "--json").stdout)
    assert [(one["name"], one["kind"], one["events"]) for one in found] == [("ops", "webhook", ["keys"]), ("team", "slack", [])]
    assert aigw("alerts", "--csv").stdout.splitlines()[0] == "name,kind,events,to"


def test_a_message_that_arrives_and_one_that_does_not(aigw: CommandLine) -> None:
    """Exit code 1 when one of them did not; the reason without the address."""
    with Emulated({"POST /hook/0123456789abcdef": Reply(200, {"ok": True})}) as far:
        aigw.config.write_text(config(far.root))
        good = aigw("alerts", "test", "ops")
        assert (good.returncode, good.stderr.splitlines()[-1]) == (0, "ops: sent")
        both = aigw("alerts", "test")
    assert len(far.asked) == 2
    assert both.returncode == 1
    assert "team: " in both.stderr
    assert "0123456789abcdef" not in both.stderr + both.stdout
    typo = aigw("alerts", "test", "opps")
    assert typo.returncode == 2
    assert "did you mean ops?" in typo.stderr
