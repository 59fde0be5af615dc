"""Whether what is installed is what was released, and was not withdrawn; and what the running server noticed about itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aigw import __version__
from aigw.cli.findings.finding import Finding, ok, problem, warning
from aigw.integrity import installed, kept, release
from aigw.integrity.installed import Kind, State


def look(data_dir: Path, state: dict[str, Any] | None) -> Iterator[Finding]:
    """*state* is the running server's, None when none runs. A single file and a tree are compared file by file (0.3 s);
    packages are left to `aigw verify`, which takes longer there."""
    here = installed.find()
    known = release.signers()
    if here.kind in (Kind.FILE, Kind.TREE):
        yield from _files(list(installed.check(here, data_dir, known)))
    else:
        revoked = kept.revoked(data_dir, known, time.time())
        if revoked is not None and (reason := revoked.reason(__version__)):
            yield _withdrawn(reason)
    yield from _oddities((state or {}).get("integrity", {}).get("oddities", []))


def _files(checks: list[installed.Check]) -> Iterator[Finding]:
    flawed = [one for one in checks if one.state is State.FLAW]
    for one in flawed:
        if one.name == "withdrawn":
            yield _withdrawn(one.flaws[0].what.removeprefix("was withdrawn: "))
        else:
            first = one.flaws[0]
            yield problem(
                "installed_changed",
                (
                    f"what is installed is not what was released: {first.path} {first.what}",
                    f"已安装的内容与发布的不一致：{first.path}（{first.what}）",
                ),
                (
                    "Whoever changed it may have every key that this machine's gateway holds.",
                    "改动它的人可能已经拿到本机网关持有的所有密钥。",
                ),
                "aigw verify",
            )
    if not flawed:
        signed = any(one.name == "signature" and one.state is State.OK for one in checks)
        how, chinese = ("as it was signed", "与签名一致") if signed else ("as it was built, unsigned", "与构建时一致，未签名")
        yield ok("installed_ok", f"what is installed is {how}", f"已安装的内容{chinese}")


def _withdrawn(reason: str) -> Finding:
    return problem(
        "installed_withdrawn",
        (f"aigw {__version__}, which this is, was withdrawn: {reason}", f"当前版本 aigw {__version__} 已被撤回：{reason}"),
        ("Change every key that it could read.", "请更换它能读取的所有密钥。"),
        "aigw update",
    )


def _oddities(oddities: list[list[str]]) -> Iterator[Finding]:
    for path, what, *_ in oddities[:5]:
        yield warning(
            "server_odd",
            (f"the running server: {path} {what}", f"运行中的服务器：{path}（{what}）"),
            ("A gateway has no reason for this, unless a plugin of yours has.", "网关没有理由这样做，除非是您自己的插件。"),
            "aigw verify --runtime",
        )
