"""This machine and this shell: which `aigw` the word means, what the locale can show, how many files may be open."""

from __future__ import annotations

import codecs
import contextlib
import locale
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aigw import __version__
from aigw.cli.findings.finding import Finding, ok, problem, warning

FILES_ENOUGH = 1024
"""Open files that a server should be allowed: an answer under way takes two, and 1024 is what most systems give."""

FILES_LEAST = 128
"""Below this a handful of callers is too many: the server itself has about 30 open."""


def look(environ: Mapping[str, str], state: dict[str, Any] | None) -> Iterator[Finding]:
    """*state* is the running server's, None when none runs."""
    yield from _command(environ.get("PATH", ""))
    yield from _locale(environ)
    yield from _files(state)


# ---- which aigw


def _command(search: str) -> Iterator[Finding]:
    found = list(dict.fromkeys(_named_aigw(search)))
    mine = [path for path in found if _is_this(path)]
    others = [path for path in found if path not in mine]
    if not found:
        yield warning(
            "command_missing",
            ("the command aigw is not on your PATH", "PATH 中没有 aigw 命令"),
            (
                "install.sh puts it into ~/.local/bin. Add that folder in your shell's start-up file.",
                "install.sh 把它放在 ~/.local/bin，请在 shell 启动文件中加入该目录。",
            ),
            'export PATH="$HOME/.local/bin:$PATH"',
        )
    elif others and (not mine or found.index(others[0]) < found.index(mine[0])):
        version = _version(others[0])
        age, age_zh = _age(version)
        yield warning(
            "command_other",
            (f"the word aigw means another one{age}: {others[0]} ({version or 'it does not say its version'})",
             f"命令 aigw 指向另一个程序{age_zh}：{others[0]}（{version or '版本未知'}）"),
            (
                f"This one is aigw {__version__}" + (f", {mine[0]}, which comes later on your PATH." if mine else "."),
                f"当前程序是 aigw {__version__}" + (f"，位于 {mine[0]}，在 PATH 中排在后面。" if mine else "。"),
            ),
            "type -a aigw",
        )  # fmt: skip
    elif others:
        yield warning(
            "command_other",
            (f"there is another aigw on your PATH: {others[0]} ({_version(others[0]) or 'it does not say its version'})",
             f"PATH 中还有另一个 aigw：{others[0]}（{_version(others[0]) or '版本未知'}）"),
            (
                f"The word aigw means this one, {mine[0]}; another shell may find that one.",
                f"命令 aigw 指向 {mine[0]}；其他 shell 可能找到另一个。",
            ),
            "type -a aigw",
        )  # fmt: skip
    else:
        yield ok("command_ok", f"aigw {__version__} at {mine[0]}", f"aigw {__version__}，位于 {mine[0]}")


def _named_aigw(search: str) -> Iterator[Path]:
    for folder in search.split(os.pathsep):
        path = Path(folder) / "aigw"
        if folder and path.is_file() and os.access(path, os.X_OK):
            yield path


def _is_this(path: Path) -> bool:
    """Whether *path* starts this Python environment: scripts of pip, uv and install.sh all name it near their beginning."""
    try:
        with path.open("rb") as file:
            start = file.read(4096).decode("utf-8", "replace")
    except OSError:
        return False
    if launcher := os.environ.get("AIGW_LAUNCHER"):  # of a single file
        with contextlib.suppress(OSError):
            return path.samefile(launcher)
    return sys.prefix in start or path.resolve().parent == Path(sys.prefix, "bin").resolve()


def _version(path: Path) -> str:
    try:
        # the one a person starts by typing the word
        said = subprocess.run(  # noqa: S603
            [str(path), "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=5, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return said.strip().partition("\n")[0][:80]


def _age(version: str) -> tuple[str, str]:
    numbers = re.search(r"\baigw (\d+)\.(\d+)\.(\d+)", version)
    ours = re.match(r"(\d+)\.(\d+)\.(\d+)", __version__)
    if numbers is None or ours is None:
        return "", ""
    theirs, mine = tuple(map(int, numbers.groups())), tuple(map(int, ours.groups()))
    return (", an older one", "（旧版本）") if theirs < mine else (", a newer one", "（新版本）") if theirs > mine else ("", "")


# ---- the locale


def _locale(environ: Mapping[str, str]) -> Iterator[Finding]:
    name = next((value for variable in ("LC_ALL", "LANG", "LC_CTYPE") if (value := environ.get(variable))), "")
    before = locale.setlocale(locale.LC_MESSAGES)
    try:
        locale.setlocale(locale.LC_MESSAGES, "")  # of LC_CTYPE Python has changed the variable, if the locale is not there
        locale.setlocale(locale.LC_MESSAGES, before)
    except locale.Error:
        yield warning(
            "locale_missing",
            (f"the locale {name} is not installed on this machine", f"本机未安装区域设置 {name}"),
            ("Names outside ASCII may be shown as escapes.", "ASCII 以外的名称可能显示为转义符。"),
            "locale -a",
        )
        return
    encoding = sys.stdout.encoding or "ascii"
    if codecs.lookup(encoding).name != "utf-8":
        yield warning(
            "locale_narrow",
            (f"this terminal's encoding is {encoding}, not UTF-8", f"终端编码是 {encoding}，不是 UTF-8"),
            ("Names that it lacks are shown as escapes.", "它没有的字符会显示为转义符。"),
            "export LANG=C.UTF-8",
        )
    else:
        yield ok("locale_ok", f"locale {name or 'C'}, {encoding}", f"区域设置 {name or 'C'}，{encoding}")


# ---- open files


def _files(state: dict[str, Any] | None) -> Iterator[Finding]:
    most = _limit_of(int(state["pid"])) if state else None
    whose, whose_zh = (
        ("the running server", "运行中的服务器") if most is not None else ("a server started here", "在此启动的服务器")
    )
    if most is None:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most == resource.RLIM_INFINITY or most >= FILES_ENOUGH:
        shown = "any number of" if most == resource.RLIM_INFINITY else str(most)
        yield ok("files_ok", f"{whose} may open {shown} files", f"{whose_zh}最多可打开 {shown} 个文件")
        return
    say = problem if most < FILES_LEAST else warning
    yield say(
        "files_few",
        (f"{whose} may open {most} files only", f"{whose_zh}最多只能打开 {most} 个文件"),
        (
            (
                f"An answer under way takes two: about {max(0, most - 30) // 2} at once. Raise it where aigw serve "
                "is started (in a systemd unit: LimitNOFILE=)."
            ),
            (
                f"每个进行中的应答占用两个：约可同时 {max(0, most - 30) // 2} 个。"
                "请在启动 aigw serve 的 shell 中调高（systemd 用 LimitNOFILE=）。"
            ),
        ),
        "ulimit -n 8192",
    )


def _limit_of(pid: int) -> int | None:
    """Open files that a process may have, as far as this system tells."""
    try:
        limits = Path(f"/proc/{pid}/limits").read_text("ascii")
    except OSError:
        return None
    found = re.search(r"^Max open files\s+(\d+|unlimited)", limits, re.MULTILINE)
    if found is None:
        return None
    return resource.RLIM_INFINITY if found[1] == "unlimited" else int(found[1])
