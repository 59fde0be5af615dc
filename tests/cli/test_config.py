"""`aigw config`, as a person and as a program sees it."""

from __future__ import annotations

import json
import re
import stat
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect

if TYPE_CHECKING:
    from conftest import CommandLine

FINE = """
[providers.moonshot]
keys = ["env:KIMI_KEY"]
[providers.moonshot-intl]
keys = ["env:KIMI_KEY", "sk-S3CR3T"]
[providers.local]
kind = "vllm"
base_url = "http://127.0.0.1:8000/v1"
[routes.fast]
targets = [{provider = "moonshot", weight = 90}, {provider = "local", model = "qwen", weight = 10}]
fallback = [{provider = "moonshot-intl", model = "kimi-k3"}]
"""


def test_a_config_that_is_fine(aigw: CommandLine) -> None:
    """Providers, routes and shadowed claims; exit 0; no secret."""
    aigw.config.write_text(FINE)
    aigw.config.chmod(0o600)
    done = aigw("config", "check", KIMI_KEY="sk-S3CR3T-2")
    assert done.stdout == (
        "provider       kind           base url                    keys\n"
        "moonshot       moonshot       https://api.moonshot.cn/v1     1\n"
        "moonshot-intl  moonshot-intl  https://api.moonshot.ai/v1     2\n"
        "local          vllm           http://127.0.0.1:8000/v1       0\n"
        "\n"
        "route  targets                        fallback\n"
        "fast   moonshot 90%, local/qwen 10%  moonshot-intl/kimi-k3\n".replace(
            "                        fall", "                       fall"
        )
    )
    assert done.stderr == (
        "kimi-*, moonshot-*: goes to moonshot, not to moonshot-intl; the first one in the file wins\n"
        f"{aigw.config} is fine: 3 providers, 1 route\n"
    )
    assert done.returncode == 0


def test_the_same_for_programs(aigw: CommandLine) -> None:
    """JSON says it all, and no secret."""
    aigw.config.write_text(FINE)
    aigw.config.chmod(0o644)
    done = aigw("config", "check", "--json", KIMI_KEY="sk-S3CR3T-2")
    found = json.loads(done.stdout)
    assert "S3CR3T" not in done.stdout
    assert len(found.pop("hash")) == 12
    assert "others may read the secrets in this file (mode 0644)" in found.pop("warnings")[0]
    assert found == {
        "ok": True,
        "file": str(aigw.config),
        "exists": True,
        "missing": [],
        "providers": [
            {"name": "moonshot", "kind": "moonshot", "base_url": "https://api.moonshot.cn/v1", "keys": 1},
            {"name": "moonshot-intl", "kind": "moonshot-intl", "base_url": "https://api.moonshot.ai/v1", "keys": 2},
            {"name": "local", "kind": "vllm", "base_url": "http://127.0.0.1:8000/v1", "keys": 0},
        ],
        "routes": [
            {
                "name": "fast",
                "targets": [{"target": "moonshot", "weight": 90}, {"target": "local/qwen", "weight": 10}],
                "fallback": ["moonshot-intl/kimi-k3"],
            }
        ],
        "shadowed": [{"winner": "moonshot", "loser": "moonshot-intl", "claims": ["kimi-*", "moonshot-*"]}],
    }
    assert (done.returncode, done.stderr) == (0, "")


def test_a_config_that_is_wrong(aigw: CommandLine) -> None:
    """Every problem on a line of its own, with file and line; exit 2; nothing on stdout."""
    aigw.config.write_text('[server]\nprot = 1\n\n[routes."re:("]\ntargets = [{provider = "x"}]\n')
    file, route = aigw.config, 'routes."re:("'
    done = aigw("config", "check")
    assert done.stderr == (
        f'error: {file}:2: server.prot: unknown key; did you mean "port"?\n'
        f"error: {file}:4: {route}: not a regular expression: missing ), unterminated subpattern at position 0\n"
        f'error: {file}:5: {route}.targets[0].provider: no provider "x" is configured; add a table [providers.NAME]\n'
    )
    assert (done.returncode, done.stdout) == (2, "")
    found = json.loads(aigw("config", "check", "--json").stdout)
    assert (found["ok"], [problem["line"] for problem in found["problems"]]) == (False, [2, 4, 5])


def test_secrets_that_are_missing(aigw: CommandLine) -> None:
    """Without its secrets (CI) a config can be fine: each missing one is a warning with its place; with --secrets an error."""
    aigw.config.write_text(
        '[providers.openai]\nkeys = [\n  "env:NO_KEY",\n  "file:/no/file",\n]\n[consumers.a]\nkey = "env:NO_CI"\n'
    )
    aigw.config.chmod(0o600)
    problems = [
        f"{aigw.config}:3: providers.openai.keys[0]: the environment variable NO_KEY is not set\n",
        f'{aigw.config}:4: providers.openai.keys[1]: cannot read "/no/file": No such file or directory\n',
        f"{aigw.config}:7: consumers.a.key: the environment variable NO_CI is not set\n",
    ]
    done = aigw("config", "check")
    assert done.returncode == 0
    assert done.stderr == (
        "".join(f"warning: {problem}" for problem in problems) + f"{aigw.config} is fine: 1 provider, 0 routes\n"
        "3 secrets not found here; a server needs them (--secrets makes that an error)\n"
    )
    assert [one["line"] for one in json.loads(aigw("config", "check", "--json").stdout)["missing"]] == [3, 4, 7]
    done = aigw("config", "check", "--secrets")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "".join(f"error: {problem}" for problem in problems)
    done = aigw("config", "check", "--secrets", "--json")
    assert done.returncode == 2
    assert [one["line"] for one in json.loads(done.stdout)["problems"]] == [3, 4, 7]


def test_secrets_that_are_wrong(aigw: CommandLine) -> None:
    """What no machine could send is an error everywhere; what a literal holds is never shown."""
    aigw.config.write_text('[consumers."a b"]\nkey = "sk-S3CR3T x"\n')
    done = aigw("config", "check")
    assert done.stderr == (
        f"error: {aigw.config}:2: consumers.a b.key: the value holds white space (character 10 of 11); "
        "was it copied whole and alone?\n"
    )
    assert done.returncode == 2


def test_check_another_file(aigw: CommandLine) -> None:
    """`check FILE` is `check --config FILE`."""
    (aigw.folder / "other.toml").write_text("[server]\nprot = 1\n")
    done = aigw("config", "check", "other.toml")
    assert (done.returncode, done.stderr) == (2, 'error: other.toml:2: server.prot: unknown key; did you mean "port"?\n')


def test_a_kind_that_nobody_knows(aigw: CommandLine) -> None:
    """The catalog's complaints have a line too."""
    aigw.config.write_text("\n[providers.a]\nkind = 'opnai'\n")
    done = aigw("config", "check")
    assert done.stderr.startswith(f"error: {aigw.config}:3: providers.a.kind: unknown kind 'opnai'; did you mean 'openai'")
    assert done.returncode == 2


def test_no_file(aigw: CommandLine) -> None:
    """A missing file that was named is wrong; at the default place it means defaults, and the place is said."""
    done = aigw("config", "check", "--config", "missing.toml")
    assert (done.returncode, done.stderr) == (2, "error: missing.toml: no such file (--config or $AIGW_CONFIG names it)\n")
    done = aigw("config", "check", AIGW_CONFIG="")
    place = aigw.folder / ".config/aigw/config.toml"
    assert done.stderr == f"no config file at {place}: the defaults hold, and no provider is configured\n"
    assert (done.returncode, done.stdout) == (0, "")


def test_models_that_were_heard_of_count(aigw: CommandLine) -> None:
    """What a server remembered from its providers' lists takes part in who shadows whom."""
    from aigw.config.load import parse
    from aigw.gateway import models_url
    from aigw.providers import compatible
    from aigw.routing.live_models import LiveModels

    text = """
    [providers.one]
    kind = "openai-compatible"
    base_url = "http://127.0.0.1:1/v1"
    [providers.two]
    kind = "openai-compatible"
    base_url = "http://127.0.0.1:2/v1"
    models = ["m"]
    """
    aigw.config.write_text(text)
    config = parse(text)
    url = models_url(compatible.build("one", config.providers["one"], config.upstream, []))
    LiveModels(aigw.data_dir / "models").save("one", url, ["m"], 0.0)
    assert "m: goes to one, not to two; the first one in the file wins\n" in aigw("config", "check").stderr


# ---- path


def test_path(aigw: CommandLine) -> None:
    """The path alone on stdout, the reason on stderr; a file that is not there is said to be so."""
    done = aigw("config", "path")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{aigw.config}\n", "from $AIGW_CONFIG\n")
    done = aigw("config", "path", "--config", "x.toml")
    assert done.stdout == "x.toml\n"
    assert done.stderr.startswith("from --config\nThere is no such file yet")
    done = aigw("config", "path", AIGW_CONFIG="")
    assert done.stdout == f"{aigw.folder}/.config/aigw/config.toml\n"
    assert done.stderr.startswith("the default place\n")
    found = json.loads(aigw("config", "path", "--json").stdout)
    assert found == {"path": str(aigw.config), "source": "$AIGW_CONFIG", "exists": True}


# ---- show


def test_show(aigw: CommandLine) -> None:
    """Everything that holds, defaults marked, secrets masked; what is shown is a config again that means the same."""
    aigw.config.write_text(
        FINE + '[server]\nport = 9000\n[providers.local.headers]\nx = "hunter2"\n[upstream]\nproxy = "http://u:hunter2@h:1"\n'
    )
    done = aigw("config", "show")
    assert (done.returncode, done.stderr) == (0, "")
    assert '\n[server]\nhost = "127.0.0.1"  # default\nport = 9000\n' in f"\n{done.stdout}"
    assert '\n[providers.moonshot-intl]\nkeys = ["env:KIMI_KEY", "***"]\nlist_models = true  # default\n' in done.stdout
    assert '  {provider = "local", model = "qwen", weight = 10},\n' in done.stdout
    assert not any(secret in done.stdout for secret in ("S3CR3T", "hunter2"))
    shown = tomllib.loads(done.stdout)
    assert list(shown["providers"]) == ["moonshot", "moonshot-intl", "local"]
    (aigw.folder / "shown.toml").write_text(done.stdout)
    assert aigw("config", "check", "shown.toml").returncode == 0


def test_show_for_programs(aigw: CommandLine) -> None:
    """The whole config with what is unset, and which keys nobody wrote."""
    aigw.config.write_text(FINE)
    done = aigw("config", "show", "--json")
    found = json.loads(done.stdout)
    assert "S3CR3T" not in done.stdout
    assert found["config"]["admin"]["port"] is None
    assert found["config"]["providers"]["local"]["base_url"] == "http://127.0.0.1:8000/v1"
    assert "server.port" in found["defaults"]
    assert "providers.moonshot.list_models" in found["defaults"]
    assert "providers.moonshot.keys" not in found["defaults"]


# ---- edit


def editor(aigw: CommandLine, script: str) -> str:
    """An $EDITOR that runs *script* with the file in $1; calls are counted in the file `calls`."""
    path = aigw.folder / "editor"
    path.write_text(f"#!/bin/sh\necho call >> {aigw.folder}/calls\n{script}\n")
    path.chmod(0o700)
    return str(path)


def beside(aigw: CommandLine) -> set[str]:
    return {path.name for path in aigw.folder.iterdir()} - {"editor", "calls", "seen"}


def test_edit(aigw: CommandLine) -> None:
    """What the editor saved replaces the file, 0600; the editor sees a private copy under a .toml name; nothing is left."""
    aigw.config.write_text("# mine\n[server]\nport = 9000\n")
    done = aigw("config", "edit", EDITOR=editor(aigw, 'stat -c %a "$1" "$(dirname "$1")" > seen; sed -i s/9000/9001/ "$1"'))
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"Saved {aigw.config}\nNo server runs here; 'aigw serve' will read it.\n"
    assert aigw.config.read_text() == "# mine\n[server]\nport = 9001\n"
    assert stat.S_IMODE(aigw.config.stat().st_mode) == 0o600
    assert (aigw.folder / "seen").read_text() == "600\n700\n"
    assert beside(aigw) == {"config.toml"}
    done = aigw("config", "edit", EDITOR="true")
    assert (done.returncode, done.stderr) == (0, "Nothing was changed.\n")
    done = aigw("config", "edit", EDITOR="false")
    assert (done.returncode, done.stderr) == (1, "error: false ended with exit code 1; nothing was changed\n")
    done = aigw("config", "edit", VISUAL="/no/such/editor --wait", EDITOR="true")
    assert done.returncode == 1
    assert done.stderr == "error: /no/such/editor: No such file or directory; set $EDITOR to the editor you like\n"
    done = aigw("config", "edit")
    assert (done.returncode, done.stderr) == (1, "error: no terminal, and $EDITOR is not set\n")
    assert beside(aigw) == {"config.toml"}


def test_edit_a_new_one(aigw: CommandLine) -> None:
    """Where there is no config yet the editor shows a beginning; left alone, no file is made."""
    new = aigw.folder / "new" / "config.toml"
    done = aigw("config", "edit", AIGW_CONFIG=str(new), EDITOR=editor(aigw, 'cat "$1" > seen'))
    assert (done.returncode, done.stderr, new.exists()) == (0, "Nothing was changed.\n", False)
    assert "# [providers.openai]" in (aigw.folder / "seen").read_text()
    done = aigw("config", "edit", AIGW_CONFIG=str(new), EDITOR=editor(aigw, "printf '[server]\\nport = 1\\n' > \"$1\""))
    assert (done.returncode, new.read_text()) == (0, "[server]\nport = 1\n")
    assert stat.S_IMODE(new.parent.stat().st_mode) == 0o700


def test_edit_mends_what_is_broken(aigw: CommandLine) -> None:
    """A file that is no TOML can be edited: that is what one wants to do with it."""
    aigw.config.write_text("[server\n")
    assert aigw("config", "edit", EDITOR=editor(aigw, 'echo "[server]" > "$1"')).returncode == 0
    assert aigw.config.read_text() == "[server]\n"


def test_edit_without_a_terminal_drops_what_is_wrong(aigw: CommandLine) -> None:
    """Every problem with file and line, exit code 2, the old file untouched."""
    aigw.config.write_text("[server]\nport = 9000\n")
    done = aigw("config", "edit", EDITOR=editor(aigw, 'printf "prot = 1\\n[providers.opnai]\\n" >> "$1"'))
    assert done.returncode == 2
    assert done.stderr == (
        f'error: {aigw.config}:3: server.prot: unknown key; did you mean "port"?\nDropped: {aigw.config} is as it was.\n'
    )
    assert aigw.config.read_text() == "[server]\nport = 9000\n"
    done = aigw("config", "edit", EDITOR=editor(aigw, 'printf "[providers.opnai]\\n" >> "$1"'))
    assert f"error: {aigw.config}:3: providers.opnai: no provider of this name is known; did you mean 'openai'" in done.stderr
    assert beside(aigw) == {"config.toml"}


def test_edit_again(aigw: CommandLine) -> None:
    """In a terminal one goes back to the editor, to the same text, until it is right; or says no."""
    aigw.config.write_text("[server]\nport = 9000\n")
    script = 'if grep -q prot "$1"; then sed -i s/prot/port/ "$1"; else sed -i "s/port = 9000/prot = 1/" "$1"; fi'
    terminal = aigw.terminal("config", "edit", EDITOR=editor(aigw, script))
    terminal.expect_exact('server.prot: unknown key; did you mean "port"?')
    terminal.expect_exact("Go back to the editor? (no drops the change) [Y/n] ")
    terminal.sendline("")
    terminal.expect_exact(f"Saved {aigw.config}")
    terminal.expect(pexpect.EOF)
    assert aigw.config.read_text() == "[server]\nport = 1\n"
    assert (aigw.folder / "calls").read_text() == "call\n" * 2
    for answer in ("n\n", "\x04"):
        terminal = aigw.terminal("config", "edit", EDITOR=editor(aigw, 'echo "prot = 1" >> "$1"'))
        terminal.expect_exact("[Y/n] ")
        terminal.send(answer)
        terminal.expect_exact(f"Dropped: {aigw.config} is as it was.")
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 2
    assert beside(aigw) == {"config.toml"}


def test_edit_loses_nothing(aigw: CommandLine) -> None:
    """When somebody else saved meanwhile, or Ctrl-C comes, the text is kept and the place is said."""
    aigw.config.write_text("[server]\nport = 9000\n")
    done = aigw("config", "edit", EDITOR=editor(aigw, f'echo "# theirs" > {aigw.config}; echo "# ours" >> "$1"'))
    assert done.returncode == 2
    assert "was changed by somebody else in the meantime; nothing was saved" in done.stderr
    assert aigw.config.read_text() == "# theirs\n"
    kept = Path(re.findall(r"Your text is kept in (.*)", done.stderr)[0])
    assert kept.read_text() == "[server]\nport = 9000\n# ours\n"
    terminal = aigw.terminal("config", "edit", EDITOR=editor(aigw, 'echo "prot = 1" > "$1"'))
    terminal.expect_exact("[Y/n] ")
    terminal.sendintr()
    terminal.expect_exact("Your text is kept in ")
    terminal.expect(pexpect.EOF)
    assert aigw.config.read_text() == "# theirs\n"


# ---- apply


FLEET = '[providers.demo]\n[routes.fast]\ntargets = [{provider = "demo", model = "demo"}]\n'


def test_apply_and_versions(aigw: CommandLine) -> None:
    """Into the store, less what belongs to the node; the same again is nothing; what would be lost is asked for; back again."""
    aigw.config.write_text(f"# ours\n{FLEET}[server]\nport = 9\n")
    shown = aigw("config", "apply", "--dry-run")
    assert (shown.returncode, shown.stderr.splitlines()[-1]) == (0, "Nothing was changed.")
    assert "+# ours" in shown.stdout
    assert "port = 9" not in shown.stdout
    assert "Nothing was applied yet" in aigw("config", "versions").stderr
    done = aigw("config", "apply")
    assert done.returncode == 0, done.stderr
    assert "Version 1 is applied" in done.stderr
    assert "does not follow it" in done.stderr
    assert "version 1 is the same" in aigw("config", "apply").stderr

    aigw.config.write_text("[providers.demo]\n")
    refused = aigw("config", "apply")
    assert refused.returncode == 2
    assert "the route fast would be lost" in refused.stderr
    assert aigw("config", "apply", "--yes").returncode == 0
    assert aigw("config", "apply", "--version", "1").returncode == 0
    versions = json.loads(aigw("config", "versions", "--json").stdout)
    assert [one["version"] for one in versions] == [3, 2, 1]
    assert "there is no version 9" in aigw("config", "apply", "--version", "9").stderr


def test_apply_takes_no_secret(aigw: CommandLine) -> None:
    """Each is named by its place, and none is shown; nor is a file that cannot be served taken."""
    aigw.config.write_text(
        '[providers.openai]\nkeys = ["env:A", "sk-very-secret-1"]\nproxy = "http://u:very-secret-2@h:1"\n'
        '[consumers.ci]\nkey = "very-secret-3"\n'
    )
    done = aigw("config", "apply", "--yes")
    assert done.returncode == 2
    for key in ("providers.openai.keys[1]", "providers.openai.proxy", "consumers.ci.key"):
        assert key in done.stderr
    assert "very-secret" not in done.stderr + done.stdout
    other = aigw.folder / "other.toml"
    other.write_text("[nonsense]\n")
    assert aigw("config", "apply", str(other)).returncode == 2
