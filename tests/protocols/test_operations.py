"""The operations agree with the dialects, and with what may be sent twice."""

from __future__ import annotations

from aigw.protocols.operations import OPERATIONS, RAW


def test_operations() -> None:
    """Each under its own name, no path twice; what makes something that costs or cannot be undone is not safe."""
    assert all(operation.name == name for name, operation in OPERATIONS.items())
    paths = [f"{operation.method} {operation.path}" for operation in OPERATIONS.values() if operation.door]
    assert len(set(paths)) == len(paths)
    for operation in OPERATIONS.values():
        assert operation.path.startswith("/")
        assert not operation.path.endswith("/")
        assert not operation.path.startswith("/v1")
        assert not operation.below or (
            operation.below in OPERATIONS and operation.path.startswith(OPERATIONS[operation.below].path)
        )
    unsafe = {name for name, operation in OPERATIONS.items() if not operation.safe}
    assert unsafe >= {
        "images",
        "image_edits",
        "image_variations",
        "speech",
        "transcriptions",
        "translations",
        "files",
        "videos",
    }
    assert not any(OPERATIONS[name].method != "POST" for name in unsafe)
    assert {name for name, operation in OPERATIONS.items() if operation.binary} == {"speech", "file_content", "video_content"}


def test_kept_objects() -> None:
    """Whatever names an object is below the operation that makes it; what names neither is placed otherwise."""
    for operation in OPERATIONS.values():
        if "{id}" in operation.path:
            assert operation.object
            assert OPERATIONS[operation.below].object == operation.object
            assert not operation.placed
        if "{item}" in operation.path:
            assert "{id}" in operation.path
        if operation.placed:
            assert operation.object
            assert "{" not in operation.path
    assert RAW.name not in OPERATIONS
