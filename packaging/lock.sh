#!/usr/bin/env bash
# Writes the three pip locks anew from uv.lock. Run it after every `uv lock`; a test compares them.
set -eu
cd "$(dirname "$0")/.."
export_lock() { uv export --quiet --frozen --no-emit-project --no-header --no-annotate --format requirements-txt "$@"; }
export_lock --no-dev --output-file packaging/requirements.lock >/dev/null
export_lock --no-dev --all-extras --output-file packaging/requirements-full.lock >/dev/null # the single file has them all
export_lock --output-file packaging/requirements-dev.lock >/dev/null
