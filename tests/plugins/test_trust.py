"""What is trusted: contents, not names."""

from __future__ import annotations

from pathlib import Path

from aigw.plugins import trust


def test_a_content_is_trusted(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    assert trust.read(data_dir) == {}
    digest = trust.add(data_dir, b"print()", "a.py")
    assert trust.read(data_dir) == {digest: "a.py"}
    assert digest == trust.digest(b"print()")
    assert (data_dir / trust.FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_it_may_be_trusted_no_longer(tmp_path: Path) -> None:
    """By its name, or the beginning of its digest; all versions of a name go."""
    one, two = trust.add(tmp_path, b"1", "a.py"), trust.add(tmp_path, b"2", "a.py")
    other = trust.add(tmp_path, b"3", "b.py")
    assert sorted(trust.remove(tmp_path, "a.py")) == sorted([one, two])
    assert trust.remove(tmp_path, other[:4]) == [], "too little to tell"
    assert trust.remove(tmp_path, other[:12]) == [other]
    assert trust.read(tmp_path) == {}


def test_odd_names_and_lines(tmp_path: Path) -> None:
    """A name cannot add a line; what is no line of ours is passed over."""
    digest = trust.add(tmp_path, b"1", "a\nff" + "0" * 62 + " b.py")
    assert list(trust.read(tmp_path)) == [digest]
    path = tmp_path / trust.FILE_NAME
    path.write_text("garbage\n\n" + path.read_text())
    assert list(trust.read(tmp_path)) == [digest]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """Whoever may write into the data directory for a moment cannot have us write elsewhere."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / trust.FILE_NAME).symlink_to(victim)
    trust.add(tmp_path, b"1", "a.py")
    assert victim.read_text() == "mine"
