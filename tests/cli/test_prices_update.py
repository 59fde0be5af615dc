"""`aigw prices update`: only what somebody trusted has signed, and nothing older."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from aigw.metering.price_list import FILE_NAME, PATH
from tests.cli.conftest import CommandLine
from tests.integrity.test_sshsig import Key


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key(tmp_path_factory.mktemp("keys"), "ours")


def price_file(date: str = "2027-01-01", cents: int = 123) -> bytes:
    """A whole one: a vendor with one model."""
    model = ["new-model", "=new-model", [[None, {"input": cents * 10**4, "output": cents * 10**4}]], []]
    rest = json.dumps({"source": "genai-prices", "id": "openai", "models": [model]}, separators=(",", ":")).encode() + b"\n"
    header = {"format": 1, "editions": {"genai-prices": "9.9.9"}, "tables": 1, "models": 1, "date": date}
    return json.dumps(header | {"sha256": hashlib.sha256(rest).hexdigest()}).encode() + b"\n" + rest


def put(aigw: CommandLine, key: Key, content: bytes, namespace: str = "aigw-prices") -> tuple[str, str]:
    """The file with its signature, and who is trusted."""
    path, signers = aigw.folder / "new.jsonl", aigw.folder / "signers"
    path.write_bytes(content)
    Path(f"{path}.sig").write_bytes(key.sign(content, namespace))
    signers.write_text(f"ours {key.public}\n")
    return str(path), str(signers)


def test_a_signed_one(aigw: CommandLine, key: Key) -> None:
    """Its prices count, until it is removed; the config's still beat it."""
    aigw.config.write_text('[providers.openai]\nkeys = ["sk-of-a-test-0123456789"]\nmodels = ["new-model"]\n')
    file, signers = put(aigw, key, price_file())
    tried = aigw("prices", "update", file, "--signers", signers, "--dry-run")
    assert (tried.returncode, "Nothing was changed" in tried.stderr) == (0, True), tried.stderr
    assert not (aigw.data_dir / FILE_NAME).exists()
    done = aigw("prices", "update", file, "--signers", signers)
    assert done.returncode == 0, done.stderr
    assert "1 models of 1 vendors, of 2027-01-01; signed by ours (SHA256:" in done.stderr
    assert (aigw.data_dir / FILE_NAME).stat().st_mode & 0o777 == 0o600
    (fact,) = [one for one in json.loads(aigw("prices", "--json").stdout) if one["model"] == "new-model"]
    assert fact["source"] == "genai-prices"
    older, _ = put(aigw, key, price_file("2026-12-31"))
    refused = aigw("prices", "update", older, "--signers", signers)
    assert (refused.returncode, "older than the one in use (2027-01-01)" in refused.stderr) == (1, True)
    assert aigw("prices", "update", older, "--signers", signers, "--older").returncode == 0
    assert aigw("prices", "update", "--remove").returncode == 0
    (fact,) = [one for one in json.loads(aigw("prices", "--json").stdout) if one["model"] == "new-model"]
    assert fact["source"] is None


def test_what_is_not_believed(aigw: CommandLine, key: Key, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Unsigned, changed, signed by a stranger or for something else, damaged, no price file: said, and nothing changes."""
    stranger = Key(tmp_path_factory.mktemp("stranger"), "stranger")
    file, signers = put(aigw, key, price_file())
    good = Path(file).read_bytes()

    def why(*flags: str) -> str:
        done = aigw("prices", "update", file, *flags)
        assert done.returncode == 1, done.stderr
        assert not (aigw.data_dir / FILE_NAME).exists()
        return done.stderr

    assert "nobody is trusted to sign prices" in why()
    Path(file).write_bytes(good + b" ")
    assert "does not belong to this content" in why("--signers", signers)
    Path(file).write_bytes(good)
    Path(f"{file}.sig").write_bytes(stranger.sign(good, "aigw-prices"))
    assert "a key that is not trusted here" in why("--signers", signers)
    put(aigw, key, good, "aigw-release")
    assert "made for another purpose" in why("--signers", signers)
    Path(f"{file}.sig").unlink()
    assert "cannot be had" in why("--signers", signers)
    for content, said in (
        (b"<html>", "no price file"),
        (good.replace(b"new-model", b"old-model"), "it is damaged"),
        (good.replace(b'"format": 1', b'"format": 2'), "its format is 2"),
    ):
        put(aigw, key, content)
        assert said in why("--signers", signers)
    assert aigw("prices", "update").returncode == 2
    assert aigw("prices", "update", "http://prices.example/p.jsonl", "--signers", signers).returncode == 1


def test_a_damaged_one_is_not_used(aigw: CommandLine) -> None:
    """What was changed behind our back: the prices of this version count, and the log says so."""
    aigw.data_dir.mkdir(exist_ok=True)
    (aigw.data_dir / FILE_NAME).write_bytes(PATH.read_bytes().replace(b'"input":', b'"inpot":', 1))
    aigw.config.write_text('[providers.openai]\nkeys = ["sk-of-a-test-0123456789"]\nmodels = ["gpt-4o"]\n')
    done = aigw("prices", "--json")
    assert done.returncode == 0
    assert [one["source"] for one in json.loads(done.stdout) if one["model"] == "gpt-4o"] == ["genai-prices"]
