"""`aigw providers keys`: the pool changes, the keys stay unseen."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from tests.cli.conftest import CommandLine
from tests.cli.emulated import KEY, MODELS, Emulated, guarded
from tests.cli.test_provider_add import typed

NEW = "sk-new-0123456789abcdefgh"


def configure(aigw: CommandLine, url: str, *keys: str) -> None:
    aigw.config.write_text(
        f'# mine\n[providers.gpu]\nkind = "openai-compatible"\nbase_url = "{url}"\nkeys = {json.dumps(list(keys))}  # pool\n'
    )


def keys(aigw: CommandLine) -> Any:
    return tomllib.loads(aigw.config.read_text())["providers"]["gpu"]["keys"]


def test_labels_references_and_endings(aigw: CommandLine) -> None:
    """Never more than the last four; of a short key nothing; what cannot be looked up is said."""
    configure(aigw, "http://gpu/v1", "env:GPU_KEY", "short", "env:UNSET")
    done = aigw("providers", "keys", GPU_KEY=KEY)
    assert done.stdout.splitlines() == [
        "key    kept in      ends in  problem",
        "gpu#1  env:GPU_KEY  cdef",
        "gpu#2  ***          -",
        "gpu#3  env:UNSET    -        the environment variable UNSET is not set",
    ]
    rows = json.loads(aigw("providers", "keys", "list", "gpu", "--json", GPU_KEY=KEY).stdout)
    assert [row["label"] for row in rows] == ["gpu#1", "gpu#2", "gpu#3"]
    assert aigw("providers", "keys", "list", "nobody").returncode == 1


def test_a_key_is_added_after_its_check(aigw: CommandLine) -> None:
    """Good: into the pool, in a file of its own. Wrong: nothing. The same again: refused."""
    with Emulated({"GET /v1/models": guarded(MODELS, NEW)}) as far:
        configure(aigw, far.url, "env:GPU_KEY")
        done = typed(aigw, NEW, "providers", "keys", "add", "gpu", "-")
        assert done.returncode == 0, done.stderr
        assert keys(aigw) == ["env:GPU_KEY", "file:~/keys/gpu"]
        assert "Added gpu#2" in done.stderr
        assert "# pool" in aigw.config.read_text()
        assert NEW not in done.stdout + done.stderr
        assert typed(aigw, "sk-bad-0123456789", "providers", "keys", "add", "gpu", "-").returncode == 1
        again = typed(aigw, NEW, "providers", "keys", "add", "gpu", "-")
        assert again.returncode == 1
        assert "gpu#2 already" in again.stderr
    assert len(keys(aigw)) == 2
    assert len(list((aigw.folder / "keys").iterdir())) == 1


def test_the_new_key_is_checked_before_the_old_one_goes(aigw: CommandLine) -> None:
    """A wrong one changes nothing; a good one takes the place, and the old one's file is deleted."""
    with Emulated({"GET /v1/models": guarded(MODELS, NEW)}) as far:
        configure(aigw, far.url)
        typed(aigw, "sk-old-0123456789", "providers", "keys", "add", "gpu", "-", "--no-check")
        old = keys(aigw)
        assert typed(aigw, "sk-bad-0123456789", "providers", "keys", "rotate", "gpu", "gpu#1", "--key", "-").returncode == 1
        assert keys(aigw) == old
        assert (aigw.folder / "keys" / "gpu").read_text() == "sk-old-0123456789\n"
        done = typed(aigw, NEW, "providers", "keys", "rotate", "gpu", "1", "--key", "-")
    assert done.returncode == 0, done.stderr
    assert keys(aigw) == ["file:~/keys/gpu-2"]
    assert not (aigw.folder / "keys" / "gpu").exists()
    assert "Revoke the old key" in done.stderr
    assert aigw("providers", "keys", "rotate", "gpu", "gpu#7", "--key", "env:X").returncode == 1


def test_a_key_is_removed(aigw: CommandLine) -> None:
    """By label; a file of the operator's own is not deleted; the last key of who needs one stays."""
    own = aigw.folder / "own-key"
    own.write_text("sk-own-0123456789")
    own.chmod(0o600)
    configure(aigw, "http://gpu/v1", f"file:{own}", "env:B")
    dry = aigw("providers", "keys", "remove", "gpu", "gpu#1", "--dry-run")
    assert dry.returncode == 0
    assert len(keys(aigw)) == 2
    done = aigw("providers", "keys", "remove", "gpu", "gpu#1")
    assert done.returncode == 0, done.stderr
    assert keys(aigw) == ["env:B"]
    assert "gpu#2 is gpu#1 now" in done.stderr
    assert own.exists()
    aigw.config.write_text('[providers.openai]\nkeys = ["env:A"]\n')
    done = aigw("providers", "keys", "remove", "openai", "1", "--yes")
    assert done.returncode == 1
    assert "providers remove openai" in done.stderr


def test_a_slip_in_the_name(aigw: CommandLine) -> None:
    """The nearest configured one is named."""
    configure(aigw, "http://gpu/v1")
    done = aigw("providers", "keys", "add", "gpuu", "env:X")
    assert done.returncode == 1
    assert "did you mean gpu" in done.stderr
