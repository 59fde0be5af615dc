"""The first schema: consumers and their keys, edits, records, hourly roll-ups, small values, leases."""

from __future__ import annotations

import sqlite3

RECORD_FIELDS = (
    "id",
    "at",
    "took",
    "first_token",
    "status",
    "outcome",
    "error",
    "operation",
    "dialect",
    "stream",
    "consumer",
    "consumer_id",
    "key_id",
    "group",
    "tags",
    "requested_model",
    "route",
    "provider",
    "model",
    "answer_model",
    "residency",
    "input",
    "cached",
    "cache_write_5m",
    "cache_write_1h",
    "output",
    "reasoning",
    "audio_input",
    "audio_output",
    "image_input",
    "image_output",
    "estimated",
    "service_tier",
    "reported_cost",
    "cost",
    "currency",
    "cache_saving",
    "abandoned_cost",
    "price_source",
    "price_version",
    "finish_reason",
    "end_user",
    "client_ip",
    "client_agent",
    "upstream_id",
    "config_hash",
    "bytes_in",
    "bytes_out",
    "attempts",
    "loss",
    "canary",
    "arm",
    "charged",
)
"""The fields of a record at this step, in their order."""


def _view() -> str:
    """`record`, for whoever asks the file with SQL of his own: one column for each field, taken from the line."""
    columns = [
        name if name in {"id", "at"} else f"json_extract(CAST(line AS TEXT), '$[{place}]') AS \"{name}\""
        for place, name in enumerate(RECORD_FIELDS)
    ]
    return f"CREATE VIEW record AS SELECT {', '.join(columns)} FROM record_line"  # noqa: S608 - our own names


_SUMS = (
    ", ".join(
        f"{name} INTEGER NOT NULL"
        for name in (
            "requests",
            "errors",
            "input",
            "cached",
            "cache_write_5m",
            "cache_write_1h",
            "output",
            "reasoning",
            "cost",
            "cache_saving",
            "abandoned_cost",
            "priced",
            "unpriced",
            "took",
            "stream_output",
            "stream_took",
        )
    )
    + ", total_histogram BLOB NOT NULL, first_histogram BLOB NOT NULL"
)

STATEMENTS = (
    # Which versions of the schema this file went through, and the oldest one whose code can still work on each.
    "CREATE TABLE schema_version (version INTEGER PRIMARY KEY, readable_by INTEGER NOT NULL, applied REAL NOT NULL)",
    """
    CREATE TABLE consumer (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        "group" TEXT NOT NULL DEFAULT '',
        tags TEXT NOT NULL DEFAULT '',
        terms TEXT NOT NULL DEFAULT '{}',
        metadata TEXT NOT NULL DEFAULT '',
        lead INTEGER NOT NULL DEFAULT 0,
        parent TEXT NOT NULL DEFAULT '',
        disabled INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE consumer_key (
        id TEXT PRIMARY KEY,
        consumer_id TEXT NOT NULL,
        digest BLOB NOT NULL,
        scheme TEXT NOT NULL DEFAULT 'sha256',
        hint TEXT NOT NULL DEFAULT '',
        created REAL NOT NULL DEFAULT 0,
        expires REAL,
        revoked REAL,
        UNIQUE (digest, scheme)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX consumer_key_by_consumer ON consumer_key (consumer_id)",
    "CREATE TABLE change (seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, id TEXT NOT NULL)",
    # What each holder of a budget (a consumer's id, "g:" and a group's name) has used, by quarters of an hour: the days of any
    # calendar begin at one. Written with the records it sums up, in the same transaction.
    """
    CREATE TABLE spent (
        holder TEXT NOT NULL,
        quarter INTEGER NOT NULL,
        usd INTEGER NOT NULL,
        tokens INTEGER NOT NULL,
        PRIMARY KEY (holder, quarter)
    ) WITHOUT ROWID
    """,
    # A record is kept as it came from the journal, a JSON array of its fields in their order: 49 columns of their own took 8 us
    # of CPU to write, this takes 3, and a new field needs no new column. The view `record` shows the fields.
    "CREATE TABLE record_line (at REAL NOT NULL, id TEXT NOT NULL, line BLOB NOT NULL)",
    _view(),
    # One index for both questions: "which of these are new?" and "what happened between two times?". Ids are random, so an
    # index that begins with them is written all over the file: at 300,000 rows an append cost 17.5 us of CPU against 6.9.
    "CREATE UNIQUE INDEX record_line_at_id ON record_line (at, id)",
    # Which of them ended with an error. A partial index would say the same, and cost 0.5 us for each record that did not.
    "CREATE TABLE failure (at REAL NOT NULL, id TEXT NOT NULL, PRIMARY KEY (at, id)) WITHOUT ROWID",
    # The dimension first: a question is about one of them, and reads its hours in one piece.
    f"""
    CREATE TABLE rollup (
        dimension TEXT NOT NULL,
        hour INTEGER NOT NULL,
        name TEXT NOT NULL,
        currency TEXT NOT NULL,
        {_SUMS},
        PRIMARY KEY (dimension, hour, name, currency)
    ) WITHOUT ROWID
    """,
    # Sums of all that is alike in every name, for an hour (span 1) and for a day (span 24); they lag behind the records, as far
    # as the fact `combined` says.
    f"""
    CREATE TABLE combination (
        span INTEGER NOT NULL,
        start INTEGER NOT NULL,
        consumer TEXT NOT NULL,
        "group" TEXT NOT NULL,
        key TEXT NOT NULL,
        provider TEXT NOT NULL,
        model TEXT NOT NULL,
        route TEXT NOT NULL,
        operation TEXT NOT NULL,
        error TEXT NOT NULL,
        currency TEXT NOT NULL,
        {_SUMS},
        PRIMARY KEY (span, start, consumer, "group", key, provider, model, route, operation, error, currency)
    ) WITHOUT ROWID
    """,
    "CREATE TABLE value (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires REAL) WITHOUT ROWID",
    "CREATE INDEX value_by_expiry ON value (expires) WHERE expires IS NOT NULL",
    "CREATE TABLE lease (name TEXT PRIMARY KEY, holder TEXT NOT NULL, expires REAL NOT NULL) WITHOUT ROWID",
    # Single facts about the file: `records_from`, the time before which records may be gone; `combined`, the rowid of the last
    # record that is counted in its combinations.
    "CREATE TABLE fact (name TEXT PRIMARY KEY, number REAL NOT NULL) WITHOUT ROWID",
)


def apply(connection: sqlite3.Connection) -> None:
    """Make the first schema; the caller holds the transaction."""
    for statement in STATEMENTS:
        connection.execute(statement)
