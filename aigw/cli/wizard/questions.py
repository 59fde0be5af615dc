"""A plan from questions. Nothing is written here: who ends it at any question has changed nothing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

from aigw.cli import output
from aigw.cli.language import is_ascii, is_chinese, say
from aigw.cli.wizard import checks, models
from aigw.cli.wizard.checks import Answer, Job
from aigw.cli.wizard.choices import Choice
from aigw.cli.wizard.plan import DEFAULT, PORT, Key, Model, Plan, Provider, meaning
from aigw.cli.wizard.ports import is_free, next_free
from aigw.cli.wizard.prompts import Prompts
from aigw.config import secrets
from aigw.config.edit import ConfigFile
from aigw.errors import ConfigError
from aigw.providers import catalog
from aigw.providers.catalog import Row

if TYPE_CHECKING:
    from aigw.cli.locations import Locations

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")  # as config/check.py has it


class Interview:
    """One run of questions, which fills `plan`."""

    def __init__(
        self, ask: Prompts, plan: Plan, file: ConfigFile, where: Locations, environ: Mapping[str, str], *, check: bool = True
    ) -> None:
        self._ask, self._plan, self._file, self._where, self._environ, self._check = ask, plan, file, where, environ, check
        standing = file.get("providers")
        self._standing: dict[str, dict[str, object]] = standing if isinstance(standing, dict) else {}

    def providers(self) -> None:
        """Which ones, and their keys."""
        for name in self._ask.pick_many(say("Which providers?", "使用哪些服务商？"), self._choices()):
            if name and name in self._standing:
                self._change(name)
            elif name:
                self._add(catalog.row(name))
        new = [provider.name for provider in self._plan.providers if not provider.old]
        if new and len(new) + len(self._standing) > 1:
            for line in models.shadows(meaning(self._plan, self._file, self._where.data_path()), new):
                _mark("note", line)

    def models(self) -> None:
        """The default model, and the one that stands in for it."""
        names = meaning(self._plan, self._file, self._where.data_path())
        found = models.candidates(names)
        standing = self._file.get("routes", DEFAULT, "targets")
        choices = [Choice(str(one), output.safe(one.name), output.safe(one.provider)) for one in found]
        keep = say("As it is", "保持不变")
        if standing:
            shown = ", ".join(output.safe("/".join(filter(None, (one["provider"], one.get("model"))))) for one in standing)
            choices.insert(0, Choice("", keep, shown))
        if not choices:
            return
        question = say('Default model (what "default" means)', "默认模型（模型名 default 指向它）")
        chosen = self._model(question, choices)
        if isinstance(chosen, Model):
            self._plan.default = chosen
        main = self._plan.default.provider if self._plan.default else str(standing[0]["provider"])
        shared = models.dialogue(names, main)
        others = [
            one
            for one in found
            if one.provider != main
            and names.providers[one.provider].kind != "demo"  # an invented answer is worse than an error
            and models.dialogue(names, one.provider) & shared
        ]
        if not others:
            return
        choices = [Choice(str(one), output.safe(one.name), output.safe(one.provider)) for one in others]
        choices.append(Choice("", say("No fallback", "不设备用模型")))
        at = None
        if self._file.get("routes", DEFAULT, "fallback"):
            choices.insert(0, Choice("=", keep))
            at = "="
        question = say("Fallback, when that one fails", "备用模型（默认模型失败时使用）")
        chosen = self._model(question, choices, at=at)
        if isinstance(chosen, Model):
            self._plan.fallback = chosen
        elif chosen != "=":
            self._plan.no_fallback = True

    def _model(self, question: str, choices: list[Choice], at: str | None = None) -> Model | str:
        """The model that was chosen or typed; the value itself of a choice that is none ("", "=")."""
        while True:
            answer = self._ask.pick(question, choices, at=at, free=True)
            if answer in ("", "="):
                return answer
            try:
                return models.understood(meaning(self._plan, self._file, self._where.data_path()), answer)
            except ValueError as error:
                _mark("!", str(error))

    def port(self) -> None:
        """Where to listen: the next free one is proposed, and who holds the other."""
        host = str(self._file.get("server", "host") or "127.0.0.1")
        standing = self._file.get("server", "port")
        port = standing if isinstance(standing, int) else PORT
        running = self._own_ports()
        proposed = port
        if port and port not in running and not is_free(port, host):
            proposed = next_free(port, host)
            _mark("note", say(f"{_taken(port)}; {proposed} is free", f"{_taken(port)}；{proposed} 可用"))

        def complaint(text: str) -> str:
            if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
                return say("a number from 1 to 65535", "请输入 1 到 65535 之间的数字")
            wanted = int(text)
            if wanted in running or wanted == standing or is_free(wanted, host):
                return ""
            return f"{_taken(wanted)}{say(f'; {next_free(wanted, host)} is free', f'；{next_free(wanted, host)} 可用')}"

        self._plan.port = int(self._ask.text(say("Port", "端口"), str(proposed), complaint))

    def _own_ports(self) -> set[int]:
        """Those of the server that runs on this data directory already."""
        from aigw.cli import control

        try:
            state = control.ask(self._where.data_path()) or {}
        except OSError:
            return set()
        addresses = state.get("addresses", {})
        urls = addresses.get("data", []) if isinstance(addresses, dict) else []
        return {int(port) for url in urls if (port := str(url).rpartition(":")[2].rstrip("/")).isdigit()}

    def consumer(self, *, have: bool) -> None:
        """Who gets a key. *have*: somebody has one already."""
        from aigw.cli import operator
        from aigw.cli.keys import valid_name

        if have and not self._ask.confirm(
            say("There are consumer keys already. Make another one?", "已有调用方密钥。再创建一个？"), default=False
        ):
            return

        def complaint(text: str) -> str:
            if text == operator.NAME:
                return say("that name stands for the commands of this machine", "这个名称留给本机的命令使用")
            try:
                valid_name(text)
            except typer.BadParameter as error:
                return error.message
            return ""

        question = say("A key to call it with: for whom?", "创建一个调用密钥，给谁用？")
        self._plan.consumer = valid_name(self._ask.text(question, "me", complaint))

    # --- providers ---

    def _choices(self) -> list[Choice]:
        """Those that are configured, those whose variable is set, then all others in the catalog's order."""
        choices = []
        if self._standing:
            choices.append(Choice("", say("No change", "不改动"), ", ".join(map(output.safe, self._standing))))
        for name, table in self._standing.items():
            try:
                row = Provider(name, str(table.get("kind") or ""), str(table.get("base_url") or "")).row()
            except ConfigError:
                continue  # the check of the config says so
            title = _title(row) if name == row.id else output.safe(name)
            choices.append(Choice(name, title, say("configured", "已配置"), _words(row)))
        rows = [row for row in map(catalog.row, catalog.ids()) if row.served and row.id not in self._standing]
        found = [(row, self._variables(row)) for row in rows]
        found.sort(key=lambda one: (not one[1], one[0].category == "generic", one[0].protocol == "demo"))
        for row, variables in found:
            note = say(f"{variables[0]} is set", f"已设置 {variables[0]}") if variables else ""
            choices.append(Choice(row.id, _title(row), note or _kind(row), _words(row)))
        return choices

    def _variables(self, row: Row) -> list[str]:
        return [name for name in row.env if self._environ.get(name)]

    def _add(self, row: Row) -> None:
        provider = Provider(row.id)
        _headline(_title(row))
        if row.category == "generic":
            taken = {*self._standing, *(one.name for one in self._plan.providers)}

            def complaint(text: str) -> str:
                if not _NAME.match(text):
                    return say("letters, digits, '.', '_' and '-'", "只能使用字母、数字、“.”、“_”和“-”")
                used = text in taken or text in catalog.ids()
                return say(f"{text} is the name of another one", f"{text} 已被占用") if used else ""

            provider.name = self._ask.text(say("A name for it", "给它起个名称"), "local", complaint)
            provider.kind = row.id
            provider.base_url = "http://127.0.0.1:8000/v1"  # vLLM's own, as good a guess as any
            self._address(provider, row)
        for setting in row.settings:
            if setting.required:
                known = self._environ.get(setting.env, "") if setting.env else ""
                provider.settings[setting.name] = self._ask.text(
                    f"{row.name}: {setting.name}", known or setting.default, _something
                )
        if row.needs_key or row.category == "generic":
            if not self._keys(provider, row):
                output.note(say(f"{row.name} is left out.", f"不使用 {row.name}。"))
                return
        elif not self._checked_without_key(provider, row):
            return
        self._plan.providers.append(provider)

    def _change(self, name: str) -> None:
        table = self._standing[name]
        provider = Provider(name, str(table.get("kind") or ""), str(table.get("base_url") or ""), old=True)
        row = provider.row()
        keys = table.get("keys")
        have = len(keys) if isinstance(keys, list) else 0
        _headline(_title(row) if name == row.id else output.safe(name))
        choices = [
            Choice("add", say("Add a key", "添加密钥"), say(f"it has {have}", f"现有 {have} 个")),
            Choice("replace", say("Replace its keys", "替换密钥")),
            Choice("url", say("Change its address", "修改地址"), provider.base_url or row.base_url),
            Choice("", say("Leave it as it is", "保持不变")),
        ]
        wanted = self._ask.pick(say("What about it?", "做什么？"), choices)
        if wanted == "url":
            self._address(provider, row)
            self._plan.providers.append(provider)
        elif wanted:
            provider.replace = wanted == "replace"
            if self._keys(provider, row) and provider.keys:
                self._plan.providers.append(provider)

    def _checked_without_key(self, provider: Provider, row: Row) -> bool:
        """A server that needs no key: does it answer? Whether it is wanted."""
        while self._check and row.protocol != "demo":
            answer = self._wait(provider, None)
            if answer is None:
                break
            answer.learn(provider)
            _mark(answer.verdict.kind, checks.answers(answer.verdict))
            if answer.verdict.kind == "good":
                break
            choices = [
                Choice("url", say("Give another address", "换一个地址"), provider.base_url or row.base_url),
                Choice("keep", say("Keep it: it may start later", "保留，它可能稍后启动")),
                Choice("", say("Leave it out", "不使用它")),
            ]
            wanted = self._ask.pick(say("What now?", "怎么办？"), choices)
            if wanted != "url":
                return wanted == "keep"
            self._address(provider, row)
        return True

    def _address(self, provider: Provider, row: Row) -> None:
        proposed = provider.base_url or row.base_url
        provider.base_url = self._ask.text(say("Its base URL", "基础 URL（base URL）"), proposed, _url)

    # --- keys ---

    def _keys(self, provider: Provider, row: Row) -> bool:
        """One key or several into the plan; False when the provider is not wanted after all."""
        while True:
            key = self._key(provider, row)
            if key is None:
                if not provider.keys and not row.needs_key:
                    return self._checked_without_key(provider, row)
                return bool(provider.keys) or provider.old
            key = self._tried(provider, row, key)
            if key is not None:
                provider.keys.append(key)
            elif not provider.keys:
                return provider.old
            another = say(f"Another key for {provider.name}?", f"再为 {provider.name} 添加一个密钥？")
            if not self._ask.confirm(another, default=False):
                return True

    def _key(self, provider: Provider, row: Row) -> Key | None:
        """The variable that is set, or what is pasted; None for none."""
        used = {key.reference for key in provider.keys}
        if not provider.replace:
            standing = self._standing.get(provider.name, {}).get("keys")
            used |= set(map(secrets.written, standing)) if isinstance(standing, list) else set()
        set_here = [name for name in self._variables(row) if f"env:{name}" not in used]
        if set_here:
            choices = [Choice(f"env:{name}", f"${name}", say("set in this shell", "当前环境中已设置")) for name in set_here]
            choices.append(Choice("", say("Paste a key", "粘贴密钥")))
            reference = self._ask.pick(say(f"Key of {provider.name}", f"{provider.name} 的密钥"), choices)
            if reference:
                return Key(reference=reference)
        while True:
            secret = self._pasted(provider, row)
            if not secret:
                return None
            if any(secret == self._known(key) for key in provider.keys):
                output.note(say("That key is in the list already.", "这个密钥已添加过。"))
                continue
            if not self._is_foreign(secret, row):
                return Key(secret=secret)

    def _known(self, key: Key) -> str:
        try:
            return checks.secret_of(key)
        except ConfigError:
            return ""

    def _pasted(self, provider: Provider, row: Row) -> str:
        """A clean key; "" for none."""

        def complaint(text: str) -> str:
            if not text.strip():
                return ""
            try:
                secrets.clean(text)
            except ValueError as error:
                return str(error)
            return ""

        none = say("Enter: leave it out", "回车：不使用")
        if not row.needs_key or provider.keys or provider.old:
            none = say("Enter: none", "回车：不填")
        question = say(f"Key of {provider.name} (hidden; {none})", f"{provider.name} 的密钥（不显示；{none}）")
        typed = self._ask.secret(question, complaint)
        return secrets.clean(typed) if typed.strip() else ""

    def _is_foreign(self, secret: str, row: Row) -> bool:
        """Whether it looks like somebody else's key, and the person wants to give another one."""
        from aigw.providers.key_check import foreign

        owner = foreign(secret, row)
        if not owner:
            return False
        whose = say(f"a key of {owner}", f"{owner} 的密钥")
        if owner == "aigw":
            whose = say("a consumer key of aigw", "aigw 的调用方密钥")
        output.note(say(f"This looks like {whose}.", f"这看起来是 {whose}。"))
        return not self._ask.confirm(say("Use it all the same?", "仍然使用？"), default=False)

    def _tried(self, provider: Provider, row: Row, key: Key) -> Key | None:
        """*key* checked live, or another one that was typed after it; None when the provider is to be left out."""
        while self._check:
            answer = self._wait(provider, key)
            if answer is None:
                output.note(say("Not checked.", "未检查。"))
                return key
            verdict = answer.verdict
            if verdict.kind == "wrong_key" and not provider.keys:
                across = self._across(provider, key)
                if across:
                    return key
            answer.learn(provider)
            _mark(verdict.kind, f"{_tail(self._known(key))}{checks.told(verdict)}")
            if verdict.kind in ("good", "limited", "unknown"):
                return key
            wanted = self._ask.pick(say("What now?", "怎么办？"), self._ways_out(provider, row, verdict.kind))
            if wanted == "keep":
                return key
            if not wanted:
                return None
            if wanted == "url":
                self._address(provider, row)
                continue
            other = self._key(provider, row)
            if other is None:
                return None
            key = other
        return key

    def _ways_out(self, provider: Provider, row: Row, kind: str) -> list[Choice]:
        again = Choice("again", say("Give another key", "换一个密钥"))
        keep = Choice("keep", say("Keep it all the same", "仍然保留"))
        url = Choice("url", say("Give another address", "换一个地址"), provider.base_url or row.base_url)
        drop = Choice("", say("Leave this key out", "不使用这个密钥"))
        return {"wrong_url": [url, keep, drop], "no_credit": [keep, again, drop]}.get(kind, [again, keep, drop])

    def _across(self, provider: Provider, key: Key) -> bool:
        """The key is good for the same vendor's other row, and the person wants that one."""
        twin = provider.row().twin
        if not twin or twin in self._standing or self._plan.named(twin) is not None:
            return False
        found = self._ask.waiting(
            say(f"Asking {twin}", f"正在询问 {twin}"), lambda: checks.across_the_border(provider, key, self._file)
        )
        if found is None:
            return False
        name, answer = found
        english = f"{provider.name} does not know this key, {name} does. Use {name}?"
        if not self._ask.confirm(say(english, f"{provider.name} 不认识这个密钥，{name} 认识。改用 {name}？"), default=True):
            return False
        provider.name = name
        answer.learn(provider)
        _mark(answer.verdict.kind, f"{_tail(self._known(key))}{checks.told(answer.verdict)}")
        return True

    def _wait(self, provider: Provider, key: Key | None) -> Answer | None:
        text = say(f"Asking {provider.name}", f"正在询问 {provider.name}")
        return self._ask.waiting(text, lambda: checks.check(Job(provider, key), self._file))


def _title(row: Row) -> str:
    """A row's names; the Chinese one first for those who read it, and not where it cannot be drawn."""
    if not row.name_zh or row.name_zh == row.name or is_ascii():
        return row.name
    return f"{row.name_zh} {row.name}" if is_chinese() else f"{row.name} {row.name_zh}"


def _words(row: Row) -> str:
    return " ".join((row.id, row.name, row.name_zh, *row.env))


def _kind(row: Row) -> str:
    if row.protocol == "demo":
        return say("offline, needs no account", "离线演示，无需账号")
    if row.category == "local":
        return say("on your own machine", "运行在您自己的机器上")
    return ""


def _headline(title: str) -> None:
    output.note(f"\n{'--' if is_ascii() else '──'} {title}")


_SIGNS = {"good": ("+", "✓"), "limited": ("+", "✓"), "unknown": ("?", "?"), "note": ("-", "•")}


def _mark(kind: str, text: str) -> None:
    """What came of something, on lines that end between words. *kind* is a verdict's."""
    plain, drawn = _SIGNS.get(kind, ("!", "✗"))
    lines = output.wrapped(output.safe(text), max(20, shutil.get_terminal_size().columns - 4))
    output.note(f"  {plain if is_ascii() else drawn} " + "\n    ".join(lines))


def _tail(secret: str) -> str:
    """How a hidden key is told from another: its last four characters."""
    return f"...{secret[-4:]}: " if len(secret) >= 16 else ""


def _taken(port: int) -> str:
    from aigw.cli.ports import holder

    who = holder(port)
    return say(f"{port} is taken by {who or 'another program'}", f"{port} 已被 {who or '其他程序'} 占用")


def _url(text: str) -> str:
    from aigw.providers.addresses import checked_url

    try:
        checked_url(text, "")
    except ConfigError as error:
        return error.message
    return ""


def _something(text: str) -> str:
    return "" if text else say("it is needed", "必须填写")
