"""The image and the chart, as far as that can be seen without Docker and without Helm: what they say fits what aigw takes.

Neither tool is on every machine that runs these tests. Where `helm` is, the chart is rendered as well.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from aigw.config.load import load

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "packaging/docker/Dockerfile").read_text("utf-8")
CHART = ROOT / "packaging/helm/aigw"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def test_the_image_runs_nothing_while_it_is_built() -> None:
    """No RUN, no download; its base is named by digest; it does not serve as root."""
    found = instructions()
    assert {name for name, _ in found} <= {
        *("ARG", "FROM", "ADD", "COPY", "LABEL", "ENV", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL"),
        *("ENTRYPOINT", "CMD"),
    }
    base = next(text for name, text in found if name == "ARG" and text.startswith("BASE="))
    assert re.fullmatch(r"BASE=\S+@sha256:[0-9a-f]{64}", base)
    stages = {"${BASE}"}
    for text in (text for name, text in found if name == "FROM"):
        source, _, stage = text.partition(" AS ")
        assert source in {*stages, "${TARGETARCH:-amd64}"}
        stages.add(stage)
    assert {"amd64", "arm64"} <= stages
    assert [text for name, text in found if name == "USER"] == ["65532:65532"]
    assert not [text for name, text in found if name == "ADD" and "://" in text]


def test_the_image_starts_what_the_launcher_starts() -> None:
    """The same interpreter and flags as the single file; the health check is a program that works."""
    commands = dict(instructions())
    flags = re.search(r"ours\[\] = \{([^}]*)\}", (ROOT / "packaging/launcher.c").read_text())
    assert flags
    assert json.loads(commands["ENTRYPOINT"]) == ["/opt/aigw/bin/python3", *json.loads(f"[{flags[1]}]")]
    check = json.loads(commands["HEALTHCHECK"].partition("CMD ")[2])
    environment = {"AIGW_PORT": "1"}  # nobody listens there
    ran = subprocess.run([sys.executable, *check[1:]], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    assert "URLError" in ran.stderr


def test_the_charts_config_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the chart writes before the user's own part is TOML that aigw takes, the first key from the environment in it."""
    text = (CHART / "templates/configmap.yaml").read_text("utf-8").partition("config.toml: |\n")[2]
    text = text.replace("{{ .Values.drainSeconds }}", "60").replace("{{ .consumer | quote }}", '"first"')
    lines = [line.strip() for line in text.splitlines() if "{{" not in line]
    own = re.search(r"^config: \|\n((?:  .*\n|\n)+)", (CHART / "values.yaml").read_text("utf-8"), re.MULTILINE)
    assert own
    config = "\n".join(lines) + "\n" + own[1].replace("  ", "")
    tomllib.loads(config)
    file = tmp_path / "config.toml"
    file.write_text(config)
    file.chmod(0o440)
    monkeypatch.setenv("AIGW_FIRST_KEY", "sk-a-first-key-of-ones-own-0001")
    loaded = load(file)
    assert loaded.server.host == "0.0.0.0"
    assert list(loaded.consumers) == ["first"]
    assert "demo" in loaded.providers


def test_every_value_of_the_chart_is_used_and_given() -> None:
    """No template asks for a value that values.yaml does not have, and none lies there unused."""
    templates = "\n".join(path.read_text("utf-8") for path in sorted((CHART / "templates").iterdir()))
    asked = set(re.findall(r"\.Values\.(\w+)", templates))
    given = set(re.findall(r"^(\w+):", (CHART / "values.yaml").read_text("utf-8"), re.MULTILINE))
    assert asked == given
    opened = len(re.findall(r"\{\{-? ?(?:if|range|with|define)\b", templates))
    assert opened == len(re.findall(r"\{\{-? ?end\b", templates))


def test_the_pod_has_no_rights_and_time_to_end() -> None:
    """Read-only root, no privileges, no token; the grace period is the drain and more."""
    text = (CHART / "templates/deployment.yaml").read_text("utf-8")
    for line in (
        "readOnlyRootFilesystem: true",
        "allowPrivilegeEscalation: false",
        "capabilities: {drop: [ALL]}",
        "runAsNonRoot: true",
        "automountServiceAccountToken: false",
        "terminationGracePeriodSeconds: {{ add (int .Values.drainSeconds) (int .Values.leaveSeconds) (int",
    ):
        assert line in text
    assert "subPath" not in text  # a file mounted so is never updated


@pytest.mark.skipif(not shutil.which("helm"), reason="helm is not here: the chart is read, not rendered")
def test_helm_renders_it() -> None:
    """`helm lint` and `helm template` find nothing wrong."""
    for command in (["lint", "--strict"], ["template", "x"]):
        ran = subprocess.run(["helm", *command, str(CHART)], env=os.environ, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
