"""What a shell may put behind the cursor: names of the config and the store, and the answer to the shell.

Somebody is typing: so it is quick (no config is built, only its text read), and whatever goes wrong is nobody's business - no
name is completed, and no message ends up in the middle of a command line. Names from outside (providers say what their models
are called, callers choose theirs) reach a shell that evaluates what it gets: only those that mean nothing to it are offered.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable
from typing import Any

import typer

from aigw.cli import output
from aigw.cli.locations import locations

VARIABLE = "_AIGW_COMPLETE"
"""Set by the scripts of `aigw --show-completion`: the way in for shells."""

SHELLS = ("bash", "zsh", "fish")

_PLAIN = re.compile(r"[\w./@+-][\w.:/@+=,-]*\Z")


def set_up(shell: str, *, install: bool) -> None:
    """Print the lines by which *shell* ("" for the one that runs this) completes `aigw`, or put them where it reads them. Exits
    with 2 for a shell that we cannot."""
    from typer import _completion_shared as completion  # typer has no public door to it

    name = shell or completion._get_shell_name() or os.path.basename(os.environ.get("SHELL", ""))  # noqa: PTH119, SLF001
    if name not in SHELLS:
        output.fail(f"{output.safe(name[:40]) or 'this shell'} is none that aigw completes for; name one: {', '.join(SHELLS)}")
        raise SystemExit(2)
    if install:
        _, place = completion.install(shell=name, prog_name="aigw", complete_var=VARIABLE)
        output.note(f"Written: {place}. A new {name} completes 'aigw'.")
    else:
        output.data(completion.get_completion_script(prog_name="aigw", complete_var=VARIABLE, shell=name))


def answer(complete: Callable[[], Any]) -> int:
    """Run *complete*, which writes to standard output and exits, and pass its answer on. Returns the exit code."""
    code = cut = 0
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        try:
            from typer import _completion_classes as classes

            classes._sanitize_help_text = str  # type: ignore[assignment] # noqa: SLF001 - ours has no markup; rich takes 0.1 s
            if os.environ.get(VARIABLE) == "complete_bash":
                cut = _rejoined()
            complete()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        except Exception:  # noqa: BLE001 - a border: a shell waits, and has no use for a reason
            return 1
    sys.stdout.write("".join(line[cut:] for line in said.getvalue().splitlines(keepends=True)))
    return code


def _rejoined() -> int:
    """Bash takes "qwen3:8b" and "--to=a" for three words each (COMP_WORDBREAKS). Put them together again in the variables by
    which it asks; returns how many characters of an answer it has already, in the words before the last one."""
    words = os.environ.get("COMP_WORDS", "").split("\n")
    cursor = int(os.environ.get("COMP_CWORD", "") or 0)
    if len(words) <= cursor:  # a script of another making, with spaces between the words
        return 0
    joined: list[str] = []
    glued, known = False, 0
    for word in words[: cursor + 1]:
        is_break = word in (":", "=") and bool(joined)
        if glued or is_break:
            known = len(joined[-1]) + (len(word) if is_break else 0)
            joined[-1] += word
        else:
            known = 0
            joined.append(word)
        glued = is_break
    last = joined[-1]
    if last.startswith("--") and "=" in last:
        option, _, last = last.partition("=")
        joined[-1:] = [option, last]
        known = max(0, known - len(option) - 1)
    os.environ["COMP_WORDS"] = " ".join([*joined[:-1], last])
    os.environ["COMP_CWORD"] = str(len(joined) - 1)
    return known


# ---- names


def provider_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Providers of the config."""
    return _fitting(_table(_config(ctx), "providers"), incomplete)


def route_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Routes of the config, patterns only where a shell lets them stand."""
    return _fitting(_table(_config(ctx), "routes"), incomplete)


def group_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Groups of the config."""
    return _fitting(_table(_config(ctx), "groups"), incomplete)


def model_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """What can be asked for by name: routes, and the models that the config and the last lists of the providers name."""
    config = _config(ctx)
    names = list(_table(config, "routes"))
    for provider in _table(config, "providers"):
        names += _models(ctx, config, provider)
    return _fitting(names, incomplete)


def target_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Places of a route: a provider, or `provider/model`."""
    config = _config(ctx)
    names: list[str] = []
    for provider in _table(config, "providers"):
        names += [provider, *(f"{provider}/{model}" for model in _models(ctx, config, provider))]
    return _fitting(names, incomplete)


def consumer_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Consumers of the store and of the config."""
    import asyncio

    where = locations(ctx)
    names = list(_table(_config(ctx), "consumers"))

    async def stored() -> list[str]:
        config = where.load_config()
        if not where.data_path().is_dir():
            return []  # to look is no reason to make a store
        async with where.store(config) as store:
            consumers, _, _ = await store.consumers()
        return [consumer.name for consumer in consumers]

    with contextlib.suppress(Exception):
        names += asyncio.run(stored())
    return _fitting(names, incomplete)


def _fitting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete) and _PLAIN.match(name)]


def _config(ctx: typer.Context) -> dict[str, Any]:
    """The config's text as plain values; nothing where there is none, or none that can be read."""
    try:
        return tomllib.loads(locations(ctx).config_path().read_text(encoding="utf-8-sig"))
    except Exception:  # noqa: BLE001 - see above: never an error into a shell
        return {}


def _table(values: dict[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _models(ctx: typer.Context, config: dict[str, Any], provider: str) -> list[str]:
    """What *provider* has, by the config and by what it listed last (routing/live_models.py keeps the file)."""
    found: list[Any] = []
    written = _table(_table(config, "providers"), provider).get("models")
    if isinstance(written, list):
        found += written
    with contextlib.suppress(Exception):
        kept = json.loads((locations(ctx).data_path() / "models" / f"{provider}.json").read_bytes())
        found += kept["models"]
    return [name for name in found if isinstance(name, str)]
