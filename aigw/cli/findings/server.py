"""The server: does one run here, with this config and this version; and if none does, could it listen where it should."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from aigw import __version__
from aigw.cli import ports
from aigw.cli.findings.finding import Finding, ok, problem, warning
from aigw.config.load import Loaded


def unasked(error: OSError) -> Finding:
    """A server is there, and says nothing."""
    reason = error.strerror or str(error)
    return problem(
        "server_unasked",
        (f"the server that runs here cannot be asked: {reason}", f"无法询问正在运行的服务器：{reason}"),
        (
            f"It may hang, belong to another user, or be another version. Its socket is {error.filename}.",
            f"它可能已卡住、属于其他用户或版本不同。其套接字为 {error.filename}。",
        ),
        "aigw status",
    )


def running(state: dict[str, Any], loaded: Loaded | None, path: Path) -> Iterator[Finding]:
    """What the running server's *state* (GET /state) says beside the config at *path*."""
    pid, config = state["pid"], state["config"]
    where = ", ".join(state["addresses"]["data"])
    since = datetime.fromtimestamp(state["started_at"]).astimezone().strftime("%Y-%m-%d %H:%M")
    yield ok(
        "server_ok",
        f"aigw serve runs at {where} since {since} (process {pid})",
        f"aigw serve 正在 {where} 运行，始于 {since}（进程 {pid}）",
    )
    if state["ready"]:
        yield warning(
            "server_not_ready",
            (f"it takes no requests: {state['ready']}", f"它不接受请求：{state['ready']}"),
            ("Clients are answered 503 until that has changed.", "在此之前客户端会收到 503。"),
            "aigw status",
        )
    if state["version"] != __version__:
        yield warning(
            "server_other_version",
            (
                f"it is aigw {state['version']}, and this command is {__version__}",
                f"它是 aigw {state['version']}，而此命令是 {__version__}",
            ),
            ("It was started before the update. Stop it and start it again.", "它在升级前启动，请停止后重新启动。"),
            f"kill -TERM {pid}",
        )
    if Path(config["path"]).absolute() != path.absolute():
        yield warning(
            "server_other_config",
            (f"it uses another config: {config['path']}", f"它使用另一份配置：{config['path']}"),
            (f"What is said here of {path} does not hold for it.", f"此处关于 {path} 的结论对它不适用。"),
            f"aigw doctor --config {config['path']}",
        )
    elif loaded is None or config["problem"] or loaded.hash != config["hash"]:
        why = str(config["problem"] or "")
        said, said_zh = (f": {why}", f"：{why}") if why else ("", "")
        yield warning(
            "server_old_config",
            (f"it serves with an older config than the file{said}", f"它仍在使用比文件旧的配置{said_zh}"),
            (
                "It looks at the file every second, and takes over only one that it can serve.",
                "它每秒检查一次文件，只接受可用的配置。",
            ),
            "aigw config check" if why or loaded is None else f"kill -HUP {pid}",
        )
    else:
        yield from _moved(state, loaded, pid)


def _moved(state: dict[str, Any], loaded: Loaded, pid: int) -> Iterator[Finding]:
    port = loaded.config.server.port
    bound = [address.rpartition(":")[2] for address in state["bound"]["data"]]
    if port and str(port) not in bound:
        yield warning(
            "port_changed",
            (
                f"the config says port {port}, and it listens at {', '.join(bound)}",
                f"配置的端口是 {port}，而它监听 {'、'.join(bound)}",
            ),
            (
                "It was started with --port or AIGW_PORT, or the port was changed since: a new one needs a restart.",
                "它以 --port 或 AIGW_PORT 启动，或之后改了端口：更换端口需要重启。",
            ),
            f"kill -TERM {pid}",
        )


def stopped(loaded: Loaded | None) -> Iterator[Finding]:
    """No server runs: whether one could listen."""
    yield ok("server_none", "no server runs here", "此处没有服务器在运行")
    if loaded is None:
        return
    server, admin = loaded.config.server, loaded.config.admin
    asked = os.environ.get("AIGW_PORT", "")  # as `aigw serve` reads it
    yield from _port(os.environ.get("AIGW_HOST") or server.host, int(asked) if asked.isdigit() else server.port, "[server]")
    if admin.port is not None:
        yield from _port(admin.host, admin.port, "[admin]")


def _port(host: str, port: int, table: str) -> Iterator[Finding]:
    if not port:
        return
    error = ports.refusal(host, port)
    where = f"{host}:{port}"
    if error is None:
        yield ok("port_free", f"port {port} is free", f"端口 {port} 空闲")
    elif error.errno == errno.EADDRINUSE:
        holder = ports.holder(port)
        by, by_zh = (f"by {holder}", f"被 {holder} ") if holder else ("by a program of another user", "被其他用户的程序")
        elsewhere = (
            ("It is an aigw with another data directory (--data-dir).", "那是使用另一数据目录（--data-dir）的 aigw。")
            if holder is not None and holder.ours
            else (
                f"Stop it, or choose another port in {table}; 'aigw serve --port' takes another one once.",
                f"请停止它，或在 {table} 中改用其他端口；'aigw serve --port' 可临时换端口。",
            )
        )
        yield problem(
            "port_held",
            (f"port {port} is held {by}", f"端口 {port} {by_zh}占用"),
            elsewhere,
            f"ps -fp {holder.pid}" if holder else f"aigw serve --port {port + 1 if port < 65535 else port - 1}",
        )
    elif error.errno in (errno.EACCES, errno.EPERM):
        yield problem(
            "port_forbidden",
            (f"this user may not listen at {where}", f"当前用户无权监听 {where}"),
            (
                f"Ports below 1024 are root's: choose a higher one in {table}.",
                f"1024 以下端口仅限 root，请在 {table} 中选择更大的端口。",
            ),
            "aigw config edit",
        )
    else:
        reason = error.strerror or str(error)
        yield problem(
            "port_impossible",
            (f"no server can listen at {where}: {reason}", f"无法监听 {where}：{reason}"),
            (
                f"host in {table} must be an address of this machine, or 0.0.0.0.",
                f"{table} 的 host 必须是本机地址，或 0.0.0.0。",
            ),
            "aigw config edit",
        )
