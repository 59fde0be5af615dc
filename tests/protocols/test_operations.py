"""The operations agree with the dialects, and with what may be sent twice."""

from __future__ import annotations

from aigw.protocols.operations import OPERATIONS


def test_operations() -> None:
    """Each under its own name, no path twice; what makes something that costs or cannot be undone is not safe."""
    assert all(operation.name == name for name, operation in OPERATIONS.items())
    paths = [f"{operation.method} {operation.path}" for operation in OPERATIONS.values()]
    assert len(set(paths)) == len(paths)
    for operation in OPERATIONS.values():
        assert operation.path.startswith("/")
        assert not operation.path.endswith("/")
        assert not operation.path.startswith("/v1")
        assert not operation.below or (
            operation.below in OPERATIONS and operation.path.startswith(OPERATIONS[operation.below].path)
        )
    assert {name for name, operation in OPERATIONS.items() if not operation.safe} == {"images", "speech"}
    assert {name for name, operation in OPERATIONS.items() if operation.binary} == {"speech"}
