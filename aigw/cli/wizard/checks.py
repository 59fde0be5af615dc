"""Keys checked live, and the verdict in words: wrong key, no credit, wrong address and "could not check" are four things."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from aigw.cli.language import say
from aigw.cli.output import safe
from aigw.cli.wizard.plan import Key, Provider, schema_of
from aigw.config import schema, secrets
from aigw.config.edit import ConfigFile
from aigw.errors import ConfigError

if TYPE_CHECKING:
    from aigw.providers.key_check import Verdict

SECONDS = 10.0
"""A check takes at most. A provider across the world answers in one or two."""

_AT_ONCE = 8


class Job(NamedTuple):
    """A key to check; `key` None: a provider that needs none."""

    provider: Provider
    key: Key | None


class Answer(NamedTuple):
    """What came of it. `table`: what a server that no catalog knows turned out to be, as keys of its table."""

    verdict: Verdict
    table: dict[str, Any]

    def learn(self, provider: Provider) -> None:
        """Put into *provider* what it said of itself."""
        provider.models = self.verdict.models or provider.models
        provider.learned = self.table or provider.learned


def check(job: Job, file: ConfigFile) -> Answer:
    """Ask the provider. Blocks for SECONDS at most (twice that, where even the API has to be found out); nothing is raised, and
    nothing is written."""
    from aigw.cli.probing import check_key, discover
    from aigw.providers.key_check import UNKNOWN, Verdict

    provider = job.provider
    try:
        secret = secret_of(job.key) if job.key is not None else ""
        if provider.row().category == "generic" and provider.base_url and not provider.old:
            found = discover(provider.base_url, secret, way_out(file), timeout=2 * SECONDS)
            return Answer(found.verdict, found.table() if found.kind else {})
        verdict = check_key(provider.name, schema_of(provider, file), way_out(file), secret, timeout=SECONDS)
    except ConfigError as error:
        verdict = Verdict(UNKNOWN, str(error))
    return Answer(verdict, {})


def check_all(jobs: Sequence[Job], file: ConfigFile) -> list[Answer]:
    """As `check`, several at once."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda job: check(job, file), jobs))


def across_the_border(provider: Provider, key: Key, file: ConfigFile) -> tuple[str, Answer] | None:
    """The same vendor's row for the other side of the border, when *key*, which *provider* does not know, is good there."""
    row = provider.row()
    if not row.twin or provider.base_url or provider.kind or provider.old:
        return None
    answer = check(Job(Provider(row.twin), key), file)
    return (row.twin, answer) if answer.verdict.kind in ("good", "limited", "no_credit") else None


def secret_of(key: Key) -> str:
    """The secret itself. Raises ConfigError when a reference does not resolve."""
    return key.secret or secrets.resolve(key.reference, key="")


def way_out(file: ConfigFile) -> schema.Upstream:
    """`[upstream]` of the config, its proxy looked up. Raises ConfigError."""
    upstream = msgspec.convert(file.get("upstream") or {}, schema.Upstream)
    if upstream.proxy and upstream.proxy.startswith(("env:", "file:")):
        proxy = secrets.resolve(upstream.proxy, key="upstream.proxy")
        upstream = msgspec.structs.replace(upstream, proxy=proxy)
    return upstream


def told(verdict: Verdict) -> str:
    """A verdict in one line, safe to show."""
    models = len(verdict.models)
    counted = say(f", {models} model{'s' * (models != 1)}", f"，{models} 个模型") if models else ""
    detail = f": {safe(verdict.detail)}" if verdict.detail else ""
    return {
        "good": say(f"the key is good{counted}", f"密钥有效{counted}"),
        "limited": say(f"the key is good, and is being rate limited{detail}", f"密钥有效，但正被限流{detail}"),
        "wrong_key": say(f"wrong key{detail}", f"密钥错误{detail}"),
        "no_credit": say(f"the key is good, but has no credit{detail}", f"密钥有效，但余额不足{detail}"),
        "wrong_url": say(f"wrong address{detail}", f"地址错误{detail}"),
    }.get(verdict.kind, say(f"could not check{detail}", f"无法检查{detail}"))


def answers(verdict: Verdict) -> str:
    """The same for a provider that needs no key."""
    models = len(verdict.models)
    if verdict.kind == "good":
        counted = say(f", {models} model{'s' * (models != 1)}", f"，{models} 个模型") if models else ""
        return say(f"it answers{counted}", f"可以访问{counted}")
    return told(verdict)
