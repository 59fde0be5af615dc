"""Several expositions as one."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from aigw.exchange import Record
from aigw.telemetry.metrics import Metrics, Reading
from aigw.telemetry.sums import added


def exposition(*records: Record, up: int = 1, active: int = 0, size: int = 0) -> bytes:
    metrics = Metrics(
        lambda: [
            Reading("store_up", "Up.", up),
            Reading("exchanges_active", "Active.", active),
            Reading("journal_bytes", "Bytes.", size),
            Reading("records_written", "Written.", len(records), grows=True),
        ]
    )
    for record in records:
        metrics.recorded(record)
    return metrics.render()[0]


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """As Prometheus reads it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def record(model: str, took: int) -> Record:
    return Record(id="r", at=1.0, model=model, provider='a"b\\ c', operation="chat", took=took, input=3, cost=5 * 10**8)


def test_the_sum_is_what_one_process_would_have_told() -> None:
    """Counters, histograms and gauges, label by label, in text that Prometheus reads."""
    one, other = [record("x", 10), record("y", 10**6)], [record("x", 10**5), record("z", 10**7)]
    together = added([exposition(*one, active=2), exposition(*other, active=3)])
    assert samples(together) == samples(exposition(*one, *other, active=5)) | {}
    assert together.count(b"# TYPE aigw_requests_total counter") == 1


def test_some_gauges_are_no_sums() -> None:
    """What each process sees of one thing: the worst of it, or the largest."""
    found = samples(added([exposition(up=1, size=70), exposition(up=0, size=90)]))
    assert found["aigw_store_up", ()] == 0
    assert found["aigw_journal_bytes", ()] == 90


def test_what_has_ended_still_counts_where_it_only_grew() -> None:
    """Twice over: the sums of the gone can be added to again."""
    gone = added([], added([exposition(record("x", 10), active=9)], b""))
    gone = added([], added([exposition(record("q", 10), active=9)], gone))
    found = samples(added([exposition(record("x", 10), active=1)], gone))
    labels = (("model", "x"), ("operation", "chat"), ("outcome", "ok"), ("provider", 'a"b\\ c'))
    assert found["aigw_requests_total", labels] == 2
    assert found["aigw_records_written_total", ()] == 3
    assert found["aigw_exchanges_active", ()] == 1
    assert samples(added([], gone))["aigw_records_written_total", ()] == 2
