"""docs/records.md against the record, the hourly sums and the metrics."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from aigw.config.schema import Config
from aigw.deployment import ProviderKey
from aigw.errors import CODES
from aigw.exchange import Attempt, Record
from aigw.gateway import Services
from aigw.protocols import DIALECTS
from aigw.protocols.operations import OPERATIONS, RAW
from aigw.routing.key_pool import KeyPool
from aigw.storage import journal
from aigw.storage.rollup import DIMENSIONS, SUMS
from aigw.storage.sqlite import ROLLUPS_PER_HOUR
from tests.docs.pages import ROOT, headings, prose, spans, tables

PAGE = (ROOT / "docs/records.md").read_text(encoding="utf-8")
TABLES = tables(PAGE)["One row for each exchange"]


def names(rows: list[list[str]]) -> list[str]:
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row[0])]


def test_every_field() -> None:
    """The fields of the record, all of them and in their order; then those of an attempt."""
    fields = list(Record.__struct_fields__)
    assert names(TABLES)[: len(fields)] == fields
    assert sorted(names(TABLES)[len(fields) :]) == sorted(Attempt.__struct_fields__)


@pytest.mark.parametrize(("field", "values"), [("operation", {*OPERATIONS, RAW.name}), ("dialect", DIALECTS)])
def test_what_a_field_may_hold(field: str, values: dict[str, object]) -> None:
    """Where values are listed, they are all listed."""
    row = next(row for row in TABLES if names([row]) == [field])
    assert set(re.findall(r"`([^`]+)`", row[1])) == set(values)


def test_outcomes() -> None:
    """Every first word of a code is an outcome."""
    row = next(row for row in TABLES if names([row]) == ["outcome"])
    outcomes = {f"{code.partition('_')[0]}_error" for code in CODES} | {"ok", "client_closed"}
    assert set(re.findall(r"`([^`]+)`", row[1])) == outcomes


def test_hourly_sums() -> None:
    """What sums are kept by, and which."""
    section = prose(PAGE).partition("## Hourly sums")[2].partition("## ")[0]
    listed = [re.findall(r"`([^`]+)`", line) for line in section.splitlines() if line.startswith("`")]
    assert listed == [list(DIMENSIONS), list(SUMS)]
    assert f"{ROLLUPS_PER_HOUR:,}" in section


def test_limits_of_the_journal() -> None:
    """The figures are those of the code."""
    section = prose(PAGE).partition("## The journal")[2].partition("## ")[0]
    assert f"up to {journal.QUEUED:,}" in section
    assert f"up to {journal.DISK_LIMIT // 1024**3} GiB" in section
    assert f"within {journal.RESCAN:.0f} seconds" in section
    assert journal.DAMAGED in section


async def test_every_metric(tmp_path: Path) -> None:
    """The page names the metrics that /metrics has, and no other."""
    services = Services(Config(), tmp_path)
    try:
        services.pools = {"openai": KeyPool([ProviderKey("openai#1", "sk-1")])}
        services.metrics.recorded(Record(id="req_1", at=0.0, error="caller_closed", cost=1, first_token=1))
        services.self_watch.intact, services.self_watch.idle_cpu = True, 0.01
        real = set(re.findall(r"^# TYPE (\S+)", services.metrics.render()[0].decode(), re.MULTILINE))
    finally:
        await services.close()
    assert set(names(tables(PAGE)["Metrics"])) == real
    assert "Metrics" in [heading.title for heading in headings(PAGE)]


def test_words_set_as_code_are_real_fields() -> None:
    """A name with an underscore that the page uses in running text is a field, a table or a command of ours."""
    known = {*Record.__struct_fields__, *Attempt.__struct_fields__, *DIMENSIONS, *SUMS, *OPERATIONS, *DIALECTS}
    known |= {word for word in spans(PAGE) if word.startswith("aigw_")}
    known |= {"caller_error", "policy_error", "provider_error", "gateway_error", "client_closed"}
    known |= {"safety_identifier"}  # OpenAI's
    known |= {"record_line"}  # the table behind the view
    assert {word for word in spans(PAGE) if re.fullmatch(r"[a-z]+_[a-z_]+", word)} <= known
    assert msgspec.structs.fields(Record)[0].name == "id"
