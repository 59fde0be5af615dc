"""The first schema: consumers and their keys, edits, records, hourly roll-ups, small values, leases."""

from __future__ import annotations

import sqlite3

STATEMENTS = (
    # Which versions of the schema this file went through, and the oldest one whose code can still work on each.
    "CREATE TABLE schema_version (version INTEGER PRIMARY KEY, readable_by INTEGER NOT NULL, applied REAL NOT NULL)",
    """
    CREATE TABLE consumer (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        "group" TEXT NOT NULL DEFAULT '',
        tags TEXT NOT NULL DEFAULT '',
        rpm INTEGER,
        concurrency INTEGER,
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
    """
    CREATE TABLE record (
        id TEXT NOT NULL,
        at REAL NOT NULL,
        took INTEGER NOT NULL,
        first_token INTEGER,
        status INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        error TEXT NOT NULL,
        operation TEXT NOT NULL,
        dialect TEXT NOT NULL,
        stream INTEGER NOT NULL,
        consumer TEXT NOT NULL,
        consumer_id TEXT NOT NULL,
        key_id TEXT NOT NULL,
        "group" TEXT NOT NULL,
        tags TEXT NOT NULL,
        requested_model TEXT NOT NULL,
        route TEXT NOT NULL,
        provider TEXT NOT NULL,
        model TEXT NOT NULL,
        answer_model TEXT NOT NULL,
        residency TEXT NOT NULL,
        input INTEGER NOT NULL,
        cached INTEGER NOT NULL,
        cache_write_5m INTEGER NOT NULL,
        cache_write_1h INTEGER NOT NULL,
        output INTEGER NOT NULL,
        reasoning INTEGER NOT NULL,
        audio_input INTEGER NOT NULL,
        audio_output INTEGER NOT NULL,
        image_input INTEGER NOT NULL,
        image_output INTEGER NOT NULL,
        estimated INTEGER NOT NULL,
        service_tier TEXT NOT NULL,
        cost INTEGER,
        currency TEXT NOT NULL,
        cache_saving INTEGER NOT NULL,
        abandoned_cost INTEGER NOT NULL,
        reported_cost INTEGER,
        price_source TEXT NOT NULL,
        price_version TEXT NOT NULL,
        finish_reason TEXT NOT NULL,
        end_user TEXT NOT NULL,
        client_ip TEXT NOT NULL,
        client_agent TEXT NOT NULL,
        upstream_id TEXT NOT NULL,
        config_hash TEXT NOT NULL,
        bytes_in INTEGER NOT NULL,
        bytes_out INTEGER NOT NULL,
        attempts TEXT NOT NULL
    )
    """,
    # One index for both questions: "which of these are new?" and "what happened between two times?". Ids are random, so an
    # index that begins with them is written all over the file: at 300,000 rows an append cost 17.5 us of CPU against 6.9.
    "CREATE UNIQUE INDEX record_at_id ON record (at, id)",
    """
    CREATE TABLE rollup (
        hour INTEGER NOT NULL,
        consumer TEXT NOT NULL,
        key_id TEXT NOT NULL,
        "group" TEXT NOT NULL,
        route TEXT NOT NULL,
        provider TEXT NOT NULL,
        model TEXT NOT NULL,
        operation TEXT NOT NULL,
        currency TEXT NOT NULL,
        requests INTEGER NOT NULL,
        errors INTEGER NOT NULL,
        input INTEGER NOT NULL,
        cached INTEGER NOT NULL,
        cache_write_5m INTEGER NOT NULL,
        cache_write_1h INTEGER NOT NULL,
        output INTEGER NOT NULL,
        reasoning INTEGER NOT NULL,
        cost INTEGER NOT NULL,
        cache_saving INTEGER NOT NULL,
        abandoned_cost INTEGER NOT NULL,
        priced INTEGER NOT NULL,
        unpriced INTEGER NOT NULL,
        took INTEGER NOT NULL,
        total_histogram TEXT NOT NULL,
        first_histogram TEXT NOT NULL,
        PRIMARY KEY (hour, consumer, key_id, "group", route, provider, model, operation, currency)
    ) WITHOUT ROWID
    """,
    "CREATE TABLE value (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires REAL) WITHOUT ROWID",
    "CREATE INDEX value_by_expiry ON value (expires) WHERE expires IS NOT NULL",
    "CREATE TABLE lease (name TEXT PRIMARY KEY, holder TEXT NOT NULL, expires REAL NOT NULL) WITHOUT ROWID",
    # Single facts about the file: `records_from`, the time before which records may be gone.
    "CREATE TABLE fact (name TEXT PRIMARY KEY, number REAL NOT NULL) WITHOUT ROWID",
)


def apply(connection: sqlite3.Connection) -> None:
    """Make the first schema; the caller holds the transaction."""
    for statement in STATEMENTS:
        connection.execute(statement)
