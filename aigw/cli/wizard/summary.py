"""A plan in a few lines, before anything is written; and what was done, with the first calls to make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigw.cli import output
from aigw.cli.language import is_ascii, say
from aigw.cli.wizard.plan import DEFAULT, PORT, Plan, Provider, expected
from aigw.cli.wizard.snippets import PLACEHOLDER, Snippet, snippets
from aigw.config import secrets
from aigw.config.edit import ConfigFile

if TYPE_CHECKING:
    from aigw.cli.locations import Locations
    from aigw.cli.names import Names
    from aigw.cli.wizard.carry_out import Done
    from aigw.cli.wizard.flags import Checked


def show_plan(plan: Plan, file: ConfigFile) -> None:
    """What would be written, on standard error."""
    reference = expected(plan)
    rows: list[tuple[str, str]] = []
    for provider in plan.providers:
        keys = [secrets.public(reference(provider, key)) for key in provider.keys]
        what = ", ".join(keys) or provider.base_url or say("no key needed", "无需密钥")
        if provider.old and keys:
            what = say(
                f"{'keys now' if provider.replace else 'more'}: {what}", f"{'替换为' if provider.replace else '新增'}：{what}"
            )
        rows.append((provider.name, what))
    if plan.default:
        rows.append((say("default model", "默认模型"), str(plan.default)))
    if plan.fallback:
        rows.append((say("fallback", "备用模型"), str(plan.fallback)))
    port = plan.port if plan.port is not None else file.get("server", "port") or PORT
    rows.append((say("port", "端口"), str(port)))
    if plan.consumer:
        rows.append((say("key for", "调用密钥"), plan.consumer))
    state = "" if file.exists else say(" (new)", "（新建）")
    rows.append((say("config", "配置文件"), f"{secrets.tilde(plan.path.absolute())}{state}"))
    wide = max(output.width(output.safe(name)) for name, _ in rows)
    output.note("")
    for name, value in rows:
        output.note(f"  {name}{' ' * (wide - output.width(output.safe(name)))}  {value}")
    output.note("")


def first_calls(names: Names, done: Done, base_url: str) -> list[Snippet]:
    """The snippets for what is configured now; [] while nothing can be called."""
    from aigw.cli.offers import Offers

    offers = Offers(names.providers, names.table)
    return snippets(base_url, done.key or PLACEHOLDER, offers.choice("chat"), offers.choice("messages"))


def show_done(plan: Plan, file: ConfigFile, done: Done, calls: list[Snippet], where: Locations) -> None:
    """What was done and what to do next: talk on standard error, the snippets on standard output."""
    from aigw.cli import control, running

    sign = "+" if is_ascii() else "✓"
    output.note(f"{sign} {say('Wrote', '已写入')} {secrets.tilde(plan.path.absolute())}")
    for reference in done.files:
        output.note(f"{sign} {say('Wrote', '已写入')} {reference.removeprefix('file:')}")
    if done.key:
        output.note(
            say(
                f"{sign} A key for {plan.consumer}. It is shown this once; aigw keeps only its digest.",
                f"{sign} 已为 {plan.consumer} 创建密钥。只显示这一次，aigw 只保存其摘要。",
            )
        )
    elif calls:
        output.note(
            say("'aigw keys create NAME' makes a key for the calls below.", "'aigw keys create 名称' 为下面的调用创建密钥。")
        )
    rule = "--" if is_ascii() else "──"
    output.note("")
    for number, snippet in enumerate(calls):
        output.data(f"{'' if number == 0 else chr(10)}# {snippet.title}\n{snippet.text}")
    if calls and not any("anthropic" in snippet.text for snippet in calls):
        output.note("")
        output.note(
            say("Anthropic's SDK: none of your providers speaks its API.", "Anthropic SDK：您的服务商都不支持它的 API。")
        )
    if not calls:
        output.note(say("No provider can be called yet; 'aigw init' adds one.", "尚无可用的服务商；用 'aigw init' 添加。"))
    output.note("")
    try:
        state = control.ask(where.data_path())
    except OSError:
        state = {}
    if state is None:
        place = _location_flags(where)
        output.note(f"{rule} {say('Next', '下一步')}: aigw serve{place}")
    else:
        running.tell(where)
        bound = state.get("addresses", {}) if isinstance(state.get("addresses"), dict) else {}
        port = done.config.server.port
        if bound.get("data") and not any(str(url).rstrip("/").endswith(f":{port}") for url in bound["data"]):
            output.note(say(f"The new port, {port}, needs a restart of it.", f"新端口 {port} 需要重启服务才生效。"))


def _location_flags(where: Locations) -> str:
    """The flags that this command line had, for the next one."""
    flags = (("--config", where.config), ("--data-dir", where.data_dir))
    return "".join(f" {flag} {Path(value)}" for flag, value in flags if value)


def as_json(
    plan: Plan, file: ConfigFile, checked: list[Checked], done: Done | None, calls: list[Snippet], base_url: str
) -> Any:
    """The same for programs. *done* None: a dry run. Codes and words are English."""
    reference = expected(plan)
    written = iter(done.files if done is not None else ())

    def keys(provider: Provider) -> list[str]:
        return [
            secrets.public(key.reference or (next(written) if done is not None else reference(provider, key)))
            for key in provider.keys
        ]

    return {
        "dry_run": done is None,
        "config": str(plan.path),
        "base_url": base_url,
        "port": file.get("server", "port") or PORT,
        "providers": [
            {
                "name": one.name,
                "kind": one.row().id,
                "base_url": one.base_url or None,
                "keys": keys(one),
                "models": len(one.models),
            }
            for one in plan.providers
        ],
        "checks": [
            {"provider": one.provider, "key": one.key or None, "verdict": one.verdict.kind, "detail": one.verdict.detail}
            for one in checked
        ],
        "default_model": _target(file.get("routes", DEFAULT, "targets")),
        "fallback": _target(file.get("routes", DEFAULT, "fallback")),
        "consumer": plan.consumer or None,
        "key": done.key or None if done is not None else None,
        "key_id": done.key_id or None if done is not None else None,
        "snippets": {snippet.title: snippet.text for snippet in calls},
    }


def _target(targets: Any) -> str | None:
    if not targets:
        return None
    return "/".join(filter(None, (targets[0].get("provider"), targets[0].get("model"))))
