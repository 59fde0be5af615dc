"""Providers, one by one: can they be reached, are their keys good, and does their clock agree with ours."""

from __future__ import annotations

import queue
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from aigw.cli.findings import way
from aigw.cli.findings.finding import Finding, ok, problem, warning
from aigw.cli.findings.way import Way
from aigw.config import schema, secrets
from aigw.config.schema import Config
from aigw.errors import ConfigError
from aigw.exchange import Origin
from aigw.providers.compatible import CompatibleProvider
from aigw.providers.key_check import Verdict

STEP = 5.0
"""Seconds for one step of the way to a provider."""

CHECK = 10.0
"""Seconds for the check of one key."""

PATIENCE = 45.0
"""Seconds for all of it: name servers that do not answer take 30."""

AT_ONCE = 16
"""Keys and ways that are tried at the same time."""

CLOCK = 300.0
"""Seconds that this machine's clock may be off. Signed requests (AWS) are refused from here on, certificates soon after."""


class Key(NamedTuple):
    """One provider key: its label and where it is written, for people; and itself."""

    label: str
    shown: str
    secret: str


class Place(NamedTuple):
    """One configured provider that can be asked."""

    name: str
    table: schema.Provider
    provider: CompatibleProvider
    keys: tuple[Key, ...]
    origin: Origin


class Seen(NamedTuple):
    """What became of one provider: the way to it, and the verdict on each key."""

    place: Place
    way: Way
    verdicts: tuple[tuple[Key, Verdict], ...]


def places(config: Config, environ: Mapping[str, str]) -> list[Place]:
    """The providers of *config* that can be asked; what is wrong with the others is the config's finding, not repeated here."""
    from aigw.providers import compatible

    found = []
    for name, table in config.providers.items():
        keys = tuple(_keys(name, table, environ))
        if table.keys and not keys:
            continue
        try:
            provider = compatible.build(name, table, config.upstream, [key.secret for key in keys], environ=environ)
        except ConfigError:
            continue
        origin = _origin(provider)
        if origin is not None:
            found.append(Place(name, table, provider, keys or (Key(name, "", ""),), origin))
    return found


def _keys(name: str, table: schema.Provider, environ: Mapping[str, str]) -> Iterator[Key]:
    for number, (label, reference) in enumerate(zip(table.labels(name), table.references, strict=True), 1):
        try:
            secret = secrets.resolve(reference, key=f"providers.{name}.keys[{number - 1}]", environment=environ)
        except ConfigError:
            continue
        yield Key(label, secrets.public(reference), secret)


def _origin(provider: CompatibleProvider) -> Origin | None:
    from aigw.deployment import ProviderKey
    from aigw.protocols.operations import OPERATIONS

    request = provider.models_request(ProviderKey("", ""))
    if request is not None:
        return request.target.origin
    for operation in OPERATIONS.values():
        if provider.dialect_for(operation) is not None:
            return provider.prepare(operation, b"{}", None, {}).target.origin
    return None


def unchecked(found: Sequence[Place]) -> Iterator[Finding]:
    """What is said when nobody is to be asked."""
    if found:
        names = _listed([place.name for place in found])
        yield ok("provider_unchecked", f"{names}: not asked (--offline)", f"{names}：未检查（--offline）")


def ask(found: Sequence[Place], upstream: schema.Upstream, progress: Callable[[int, int], None]) -> list[Seen]:
    """Ask all of them, side by side; *progress* is told how many of how many are through. Ctrl-C ends it at once."""
    work: queue.SimpleQueue[Place] = queue.SimpleQueue()
    done: queue.SimpleQueue[Seen] = queue.SimpleQueue()
    for place in found:
        work.put(place)

    def ask_some() -> None:
        while True:
            try:
                place = work.get_nowait()
            except queue.Empty:
                return
            done.put(_asked(place, upstream))

    for _ in range(min(AT_ONCE, len(found))):
        threading.Thread(target=ask_some, daemon=True).start()  # a name server that is silent must not keep us from leaving
    results: dict[str, Seen] = {}
    until = time.monotonic() + PATIENCE
    progress(0, len(found))
    while len(results) < len(found):
        try:
            seen = done.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            break
        results[seen.place.name] = seen
        progress(len(results), len(found))
    late = Way("provider_silent", f"no answer within {PATIENCE:g} s")
    return [results.get(place.name) or Seen(place, late, ()) for place in found]


def _asked(place: Place, upstream: schema.Upstream) -> Seen:
    from aigw.cli import probing

    if place.origin.scheme == "demo":
        return Seen(place, Way(), ())
    way_there = way.walk(place.origin, STEP)
    if way_there.code not in ("", "provider_silent"):  # some servers have no answer to HEAD / and yet serve
        return Seen(place, way_there, ())
    verdicts: dict[str, Verdict] = {}

    def check(key: Key) -> None:
        verdicts[key.label] = probing.check_key(place.name, place.table, upstream, key.secret, timeout=CHECK)

    threads = [threading.Thread(target=check, args=(key,), daemon=True) for key in place.keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CHECK + 5)
    late = Verdict("unknown", "did not answer in time")
    known = tuple((key, verdicts.get(key.label, late)) for key in place.keys)
    if way_there.code and any(verdict.kind in ("good", "limited", "wrong_key", "no_credit") for _, verdict in known):
        way_there = Way()
    return Seen(place, way_there, known)


def findings(results: Sequence[Seen]) -> Iterator[Finding]:
    """What was seen, as findings: those who cannot be reached for one and the same reason together."""
    lost: dict[tuple[str, ...], list[Seen]] = defaultdict(list)
    for seen in results:
        if seen.way.code:
            lost[_reason_of(seen)].append(seen)
        elif seen.place.origin.scheme == "demo":
            name = seen.place.name
            yield ok("provider_ok", f"{name}: answers offline, for trying out", f"{name}：离线应答，供试用")
        else:
            yield from _of_keys(seen)
    for group in lost.values():
        yield _of_way(group)
    yield from _of_clock([seen for seen in results if seen.way.ahead is not None])


# ---- keys


def _of_keys(seen: Seen) -> Iterator[Finding]:
    name = seen.place.name
    good = [verdict for _, verdict in seen.verdicts if verdict.kind == "good"]
    if good:
        models = max(len(verdict.models) for verdict in good)
        some, some_zh = (f", {models} models", f"，{models} 个模型") if models else ("", "")
        if not seen.place.keys[0].secret:
            yield ok("provider_ok", f"{name}: answers{some}", f"{name}：有应答{some_zh}")
        else:
            number = f"{len(good)} key{'s are' if len(good) != 1 else ' is'} good"
            yield ok("provider_ok", f"{name}: {number}{some}", f"{name}：{len(good)} 个密钥有效{some_zh}")
    for key, verdict in seen.verdicts:
        finding = _of_verdict(seen.place, key, verdict)
        if finding is not None:
            yield finding


def _of_verdict(place: Place, key: Key, verdict: Verdict) -> Finding | None:
    name, detail = place.name, verdict.detail
    which = f"{key.label} ({key.shown})" if key.shown else name
    said, said_zh = (f": {detail}", f"：{detail}") if detail else ("", "")
    if verdict.kind == "wrong_key":
        return problem(
            "key_wrong",
            (f"{which}: the provider refuses this key{said}", f"{which}：服务商不接受此密钥{said_zh}"),
            (
                "Requests go to the other keys, or fail with provider_credentials_invalid.",
                "请求会转到其他密钥，否则以 provider_credentials_invalid 失败。",
            ),
            f"aigw providers keys rotate {name} {key.label} --key -",
        )
    if verdict.kind == "no_credit":
        return problem(
            "key_no_credit",
            (
                f"{which}: the key is right, but its account has no credit left{said}",
                f"{which}：密钥正确，但账户余额不足{said_zh}",
            ),
            (
                "Top the account up at the provider, or add a key of another account.",
                "请到服务商处充值，或添加另一账户的密钥。",
            ),
            f"aigw providers test {name}",
        )
    if verdict.kind == "limited":
        return warning(
            "key_limited",
            (f"{which}: the key is good, and limited at the moment{said}", f"{which}：密钥有效，但当前被限流{said_zh}"),
            (
                "It rests until the provider takes requests again; a second key would take over.",
                "它会暂停使用，直到服务商重新接受请求；可添加第二个密钥分担。",
            ),
            f"aigw providers keys add {name} -",
        )
    if verdict.kind == "wrong_url":
        return problem(
            "url_wrong",
            (f"{name}: at its address is no such API{said}", f"{name}：该地址没有这个 API{said_zh}"),
            (
                "base_url is written as in the catalog, with /v1 where it has that, and without an endpoint's path.",
                "base_url 的写法与目录一致：目录带 /v1 则带，不含具体端点路径。",
            ),
            f"aigw providers show {name}",
        )
    if verdict.kind == "unknown":
        return warning(
            "provider_unknown",
            (f"{which}: could not be checked{said}", f"{which}：无法检查{said_zh}"),
            ("That says nothing against the key. A real request will tell.", "这并不说明密钥有误，发一次真实请求即可知道。"),
            f"aigw providers test {name}",
        )
    return None


# ---- the way there


def _reason_of(seen: Seen) -> tuple[str, ...]:
    """What must be equal for two providers to share one finding."""
    origin, code = seen.place.origin, seen.way.code
    if code.startswith("proxy_"):
        return code, _proxy(origin), seen.way.detail
    if code == "certificate_unknown" and seen.way.issuer:
        return code, seen.way.issuer
    if code == "ca_file_wrong":
        return code, seen.way.detail
    return code, origin.host, str(origin.port)


def _of_way(group: Sequence[Seen]) -> Finding:
    origin, (code, detail, _, issuer) = group[0].place.origin, group[0].way
    who = _listed([seen.place.name for seen in group])
    host, proxy = f"{origin.host}:{origin.port}", _proxy(origin)
    test = f"aigw providers test {group[0].place.name}"
    edit = "aigw config edit"
    through = f" through the proxy {proxy}" if proxy else ""
    match code:
        case "host_unknown":
            return problem(
                code,
                (
                    f"{who}: the name {origin.host} cannot be resolved ({detail})",
                    f"{who}：无法解析域名 {origin.host}（{detail}）",
                ),
                (
                    "Is there a network and a name server? If a proxy leads out: proxy in [upstream], or HTTPS_PROXY.",
                    "请检查网络和 DNS。公司网络需要代理时，请设置 [upstream] 的 proxy 或 HTTPS_PROXY。",
                ),
                f"getent hosts {origin.host}",
            )
        case "provider_down":
            return problem(
                code,
                (f"{who}: nothing answers at {host} ({detail})", f"{who}：{host} 无应答（{detail}）"),
                (
                    "The name is known, and no connection can be made: the server is down, or a firewall is in between.",
                    "域名可解析但无法建立连接：服务器未运行，或被防火墙阻挡。",
                ),
                test,
            )
        case "provider_silent":
            return problem(
                code,
                (f"{who}: {host} does not answer{through} ({detail})", f"{who}：{host} 不应答（{detail}）"),
                (
                    "A connection was made, or a firewall swallows it; the provider's own status page may know more.",
                    "连接可能已建立，或被防火墙丢弃；可查看服务商的状态页面。",
                ),
                test,
            )
        case "proxy_login":
            known = "refuses the login it is given" if "@" in origin.proxy else "wants a user and a password"
            known_zh = "拒绝了所给的用户名和密码" if "@" in origin.proxy else "要求用户名和密码"
            return problem(
                code,
                (f"{who}: the proxy {proxy} {known} ({detail})", f"{who}：代理 {proxy} {known_zh}（{detail}）"),
                (
                    (
                        "The provider was not asked at all. Write them into the proxy's address: "
                        'proxy = "env:AIGW_PROXY" in [upstream], and AIGW_PROXY=http://USER:PASSWORD@HOST:PORT.'
                    ),
                    (
                        '尚未到达服务商。请写入代理地址：[upstream] 中 proxy = "env:AIGW_PROXY"，'
                        "并设置 AIGW_PROXY=http://USER:PASSWORD@HOST:PORT。"
                    ),
                ),
                edit,
            )
        case "proxy_refuses":
            return problem(
                code,
                (
                    f"{who}: the proxy {proxy} does not let us through to {host} ({detail})",
                    f"{who}：代理 {proxy} 不允许访问 {host}（{detail}）",
                ),
                (
                    "Whoever runs the proxy has to allow that host; or go directly with no_proxy in [upstream].",
                    "请代理管理员放行该主机；或在 [upstream] 用 no_proxy 直连。",
                ),
                edit,
            )
        case "proxy_far_side":
            return problem(
                code,
                (
                    f"{who}: the proxy {proxy} cannot reach {host} ({detail})",
                    f"{who}：代理 {proxy} 无法连接 {host}（{detail}）",
                ),
                (
                    "The proxy works; the provider, or the proxy's own way to it, does not.",
                    "代理本身正常；服务商或代理到服务商的线路有问题。",
                ),
                test,
            )
        case "proxy_down":
            return problem(
                code,
                (f"{who}: the proxy {proxy} cannot be used ({detail})", f"{who}：代理 {proxy} 不可用（{detail}）"),
                (
                    "The provider was not asked at all. Is the proxy's address right, and does it run?",
                    "尚未到达服务商。请检查代理地址是否正确、代理是否在运行。",
                ),
                edit,
            )
        case "proxy_unknown":
            return problem(
                code,
                (
                    f"{who}: the proxy's name {proxy.rpartition(':')[0]} cannot be resolved ({detail})",
                    f"{who}：无法解析代理域名 {proxy.rpartition(':')[0]}（{detail}）",
                ),
                ("The provider was not asked at all. Is the proxy's name right?", "尚未到达服务商。请检查代理名称。"),
                edit,
            )
        case "certificate_unknown":
            by, by_zh = (f", signed by {issuer!r}", f"，签发者为 {issuer!r}") if issuer else ("", "")
            return problem(
                code,
                (f"{who}: the certificate at {host}{by}, is not trusted ({detail})".replace(",,", ","),
                 f"{who}：{host} 的证书不受信任{by_zh}（{detail}）"),
                (
                    ("If that is your company's proxy, which opens TLS, or a server of your own: trust its authority with "
                    'ca_file = "/path/to/authority.pem" in [upstream] or the provider. If it is neither, somebody listens in: '
                    "send no key."),
                    ("如果是公司的 TLS 解密代理或自建服务：在 [upstream] 或该服务商中设置 "
                    'ca_file = "/path/to/authority.pem"。否则可能有人窃听，请勿发送密钥。'),
                ),
                edit,
            )  # fmt: skip
        case "certificate_name":
            return problem(
                code,
                (
                    f"{who}: the certificate at {host} is for another name ({detail})",
                    f"{who}：{host} 的证书属于其他域名（{detail}）",
                ),
                (
                    "Write base_url with the name that the certificate has, not with an address.",
                    "请在 base_url 中使用证书上的域名，而不是 IP 地址。",
                ),
                edit,
            )
        case "certificate_date":
            return problem(
                code,
                (
                    f"{who}: the certificate at {host} is out of its dates ({detail})",
                    f"{who}：{host} 的证书不在有效期内（{detail}）",
                ),
                (
                    "Either it ran out, or this machine's clock is wrong.",
                    "证书已过期，或本机时钟不准。",
                ),
                "date -u",
            )
        case "ca_file_wrong":
            return problem(
                code,
                (f"{who}: ca_file cannot be used: {detail}", f"{who}：无法使用 ca_file：{detail}"),
                ("Expected a readable PEM file with a certificate in it.", "应为可读的、含证书的 PEM 文件。"),
                edit,
            )
    return problem(
        "tls_failed",
        (f"{who}: no TLS with {host}{through} ({detail})", f"{who}：无法与 {host} 建立 TLS（{detail}）"),
        (
            "Is it an http:// server? Or something in between cuts the connection off.",
            "它可能是 http:// 服务，或连接被中途切断。",
        ),
        edit,
    )


def _proxy(origin: Origin) -> str:
    """The proxy's address, without its login."""
    parts = urlsplit(origin.proxy)
    return f"{parts.hostname}:{parts.port or 80}" if origin.proxy else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" +{len(names) - 4}" if len(names) > 4 else "")


# ---- the clock


def _of_clock(results: Sequence[Seen]) -> Iterator[Finding]:
    if not results:
        return
    ahead = statistics.median(seen.way.ahead or 0.0 for seen in results)
    who = _listed([seen.place.name for seen in results])
    if abs(ahead) <= CLOCK:
        yield ok("clock_ok", f"the clock agrees with {who}", f"时钟与 {who} 一致")
        return
    minutes = _span(abs(ahead))
    direction, direction_zh = ("slow", "慢") if ahead > 0 else ("fast", "快")
    yield problem(
        "clock_wrong",
        (
            f"this machine's clock is {minutes} {direction}, by the clock of {who}",
            f"按 {who} 的时钟，本机时钟{direction_zh}了 {minutes}",
        ),
        (
            "Certificates look expired, keys expire at the wrong time, and records get wrong dates.",
            "证书会显得过期，密钥会在错误的时间失效，记录的日期也会出错。",
        ),
        "timedatectl set-ntp true",
    )


def _span(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
