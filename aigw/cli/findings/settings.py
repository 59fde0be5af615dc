"""The config file: can it be read and served, does every reference lead to a secret, and who else can read or change it."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from aigw.cli.findings.finding import Finding, ok, problem, warning
from aigw.config.load import Loaded
from aigw.config.schema import Config
from aigw.errors import ConfigError


class Settings(NamedTuple):
    """What was found, and the config where there is one that can be read."""

    findings: tuple[Finding, ...]
    loaded: Loaded | None = None


def look(path: Path, environ: Mapping[str, str], serving: str = "") -> Settings:
    """Look at the config at *path*. *serving* is the hash of the config that a running server has: what it could
    resolve may be missing in this shell only."""
    from aigw.config.load import load_with_notes

    try:
        loaded = load_with_notes(path)
    except ConfigError as error:
        return Settings(tuple(_wrong(one) for one in getattr(error, "problems", (error,))))
    found = [*_unresolved(loaded, environ, serves=loaded.hash == serving), *_modes(loaded)]
    config = loaded.config
    if not any(finding.code == "config_wrong" for finding in found):
        if loaded.exists:
            counts = f"{_count(len(config.providers), 'provider')}, {_count(len(config.routes), 'route')}"
            chinese = f"{len(config.providers)} 个服务商，{len(config.routes)} 条路由"
            found.insert(0, ok("config_ok", f"config {path}: {counts}", f"配置 {path}：{chinese}"))
        else:
            found.insert(0, ok("config_missing", f"no config yet: {path}", f"尚无配置文件：{path}"))
    if not config.providers:
        found.append(
            problem(
                "no_provider",
                ("no provider is configured", "尚未配置服务商"),
                ("Every request is answered 503 until there is one.", "在此之前，所有请求都会返回 503。"),
                "aigw init",
            )
        )
    return Settings(tuple(found), loaded)


def _wrong(error: ConfigError) -> Finding:
    text = str(error)
    return problem(
        "config_wrong",
        (f"config {text}", f"配置 {text}"),
        (
            "A server does not start with it; one that runs goes on with the config it has.",
            "服务器无法用它启动；运行中的服务器会继续使用原有配置。",
        ),
        "aigw config edit",
    )


def _unresolved(loaded: Loaded, environ: Mapping[str, str], *, serves: bool) -> Iterator[Finding]:
    from aigw.gateway import Build

    try:
        Build(loaded, environ)
    except ConfigError as error:
        for one in getattr(error, "problems", (error,)):
            if serves:
                yield warning(
                    "config_doubtful",
                    (f"config {one}", f"配置 {one}"),
                    (
                        "Here, in this shell: the running server was started where it is there.",
                        "仅在此 shell 中如此：运行中的服务器启动时已能取得。",
                    ),
                )
            else:
                yield _wrong(one)


def _modes(loaded: Loaded) -> Iterator[Finding]:
    for text in loaded.warnings:
        if "; run: chmod" in text:
            what = text.partition("; run: ")[0]
            yield warning("config_open", (what, what), next=f"chmod 600 {shlex.quote(str(loaded.path))}")
        else:
            yield warning("config_doubtful", (text, text), next="aigw config edit")
    folder = loaded.path.parent
    if loaded.exists and (mode := _mode(folder)) & 0o022 and not mode & stat.S_ISVTX:
        yield warning(
            "config_open",
            (
                f"others may put files into {folder} (mode {mode & 0o777:04o})",
                f"其他用户可以写入 {folder}（权限 {mode & 0o777:04o}）",
            ),
            (
                "Whoever can do that can replace the config, and with it where your keys are sent.",
                "他们可以替换配置，从而改变密钥的去向。",
            ),
            f"chmod 700 {shlex.quote(str(folder))}",
        )
    for path in sorted(_key_files(loaded.config)):
        if (mode := _mode(Path(path))) & 0o044:
            yield warning(
                "key_file_open",
                (f"others may read {path} (mode {mode & 0o777:04o})", f"其他用户可以读取 {path}（权限 {mode & 0o777:04o}）"),
                ("It holds a key.", "其中有密钥。"),
                f"chmod 600 {shlex.quote(path)}",
            )


def _key_files(config: Config) -> set[str]:
    from aigw.config.check import references

    found = (reference for _, reference in references(config))
    return {os.path.expanduser(reference[5:]) for reference in found if reference.startswith("file:")}  # noqa: PTH111 - as secrets.py


def _mode(path: Path) -> int:
    """Permission bits; 0 for what cannot be looked at."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
