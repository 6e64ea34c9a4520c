"""What deploy/ offers to run cartsync with fits the program: names of settings, ports, commands and versions."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.programs import program
from worker import __version__
from worker.cli import app
from worker.config import Config
from worker.config.console import console_config
from worker.web.console.auth import _fits, read_users

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "helm" / "cartsync"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def yaml_of(path: Path) -> Any:
    """What a YAML file holds."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_values_of_the_chart_fit_their_schema() -> None:
    """Defaults are legal, a misspelled value is not, and every value has a place in the schema."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml_of(CHART / "values.yaml")
    jsonschema.Draft7Validator(schema).validate(values)
    for wrong in ({"worker": {"replica": 3}}, {"worker": {"replicas": 0}}, {"image": {"digest": "latest"}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft7Validator(schema).validate(values | wrong)


def test_chart_has_our_version() -> None:
    """The image that it asks for is that of this release."""
    chart = yaml_of(CHART / "Chart.yaml")
    assert chart["appVersion"] == chart["version"] == __version__


def test_templates_use_values_that_there_are() -> None:
    """`.Values.…` in a template names a value of values.yaml."""
    values = yaml_of(CHART / "values.yaml")
    missing = []
    for path in sorted((CHART / "templates").iterdir()):
        for name in re.findall(r"\.Values((?:\.\w+)+)", path.read_text()):
            found: Any = values
            for part in name.split(".")[1:]:
                found = found.get(part, ...) if isinstance(found, dict) else ...
            if found is ...:
                missing.append(f"{path.name}: .Values{name}")
    assert not missing


ALL = (
    "topics.create=true",
    "receiver.enabled=true",
    "receiver.config=[kafka]",
    "receiver.ingress.enabled=true",
    "console.enabled=true",
    "console.config=[kafka]",
    "console.usersSecretName=users",
    "console.ingress.enabled=true",
    "keda.enabled=true",
    "keda.prometheusAddress=http://prometheus:9090",
    "networkPolicy.enabled=true",
    "monitoring.serviceMonitor=true",
    "monitoring.prometheusRule=true",
    "monitoring.dashboard=true",
)
CHOICES = {
    "as it is": (),
    "all": ALL,
    "one worker": ("worker.replicas=1",),
    "a receiver alone beside it": ("receiver.enabled=true", "receiver.config=[kafka]"),
    "pinned": (f"image.digest=sha256:{'0' * 64}", "image.pullPolicy=Always"),
}
"""Values that people choose, by what they get."""
OF_OTHERS = {"ScaledObject", "ServiceMonitor", "PrometheusRule"}
"""Kinds that an operator brings along: their schemas are not Kubernetes' own."""


@pytest.mark.parametrize("chosen", CHOICES.values(), ids=CHOICES.keys())
def test_helm_renders_the_chart(chosen: tuple[str, ...], tmp_path: Path) -> None:
    """Helm finds nothing wrong, and each object has only members that Kubernetes knows, of the types that it wants."""
    helm = program("helm")
    on = [word for setting in chosen for word in ("--set", setting)]
    rendered = ""
    for command in (["lint", "--strict"], ["template", "shop", "--kube-version", "1.33"]):
        done = subprocess.run([helm, *command, str(CHART), *on], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        rendered = done.stdout
    objects = [one for one in yaml.safe_load_all(rendered) if one]
    if chosen is ALL:
        wanted = {"Deployment", "Service", "Ingress", "NetworkPolicy", "Job", "PodDisruptionBudget", *OF_OTHERS}
        assert wanted <= {one["kind"] for one in objects}
    file = tmp_path / "objects.yaml"
    file.write_text(yaml.safe_dump_all(one for one in objects if one["kind"] not in OF_OTHERS))
    for version in ("1.30.0", "1.33.0"):
        _understood_by_kubernetes(version, file)


def _understood_by_kubernetes(version: str, file: Path) -> None:
    done = subprocess.run(
        [program("kubernetes-validate"), "--strict", "-k", version, str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "ERROR" in done.stdout + done.stderr) == (0, False), done.stdout + done.stderr


def test_misspelled_member_is_found(tmp_path: Path) -> None:
    """The check of the rendered objects can fail."""
    file = tmp_path / "objects.yaml"
    file.write_text(
        yaml.safe_dump({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"port": 1}})
    )
    with pytest.raises(AssertionError):
        _understood_by_kubernetes("1.33.0", file)


def test_hadolint_has_nothing_to_say_of_the_image() -> None:
    """Neither of what it calls an error nor of its style."""
    done = subprocess.run(
        [program("hadolint"), str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_image_says_which_release_it_is() -> None:
    """Its labels are those of this release."""
    text = (DEPLOY / "Dockerfile").read_text()
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', text))
    assert labels["version"] == __version__
    assert labels.keys() >= {"title", "description", "licenses", "version"}


def test_compose_understands_its_file() -> None:
    """`docker compose config` resolves anchors, mounts and names without a complaint."""
    file = str(DEPLOY / "compose" / "compose.yaml")
    done = subprocess.run(
        [program("docker-compose"), "-f", file, "config", "--quiet"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_configuration_of_compose_is_right() -> None:
    """`docker compose up` starts with a configuration that cartsync accepts."""
    config = Config.load(DEPLOY / "compose" / "cartsync.toml", environ={})
    assert config.callbacks.record_secrets
    console = console_config(DEPLOY / "compose" / "cartsync.toml", environ={}, host="0.0.0.0").console
    assert console.auth == "basic"
    assert read_users(DEPLOY / "compose" / "console-users").keys() == {"operator"}


def test_password_of_the_console_of_compose() -> None:
    """The one that the file names lets somebody in, and no other one does."""
    said = (DEPLOY / "compose" / "compose.yaml").read_text()
    name, password = re.search(r"console is at \S+ \((\w+), ([\w-]+)\)", said).groups()  # type: ignore[union-attr]
    users = read_users(DEPLOY / "compose" / "console-users")
    assert _fits(users[name], password)
    assert not _fits(users[name], password + "x")


def test_users_and_index_of_compose_are_mounted() -> None:
    """The console finds its users where its configuration says, and may write its index."""
    console = Config.load(DEPLOY / "compose" / "cartsync.toml", environ={}).console
    service = yaml_of(DEPLOY / "compose" / "compose.yaml")["services"]["console"]
    assert f"./console-users:{console.users_file}:ro" in service["volumes"]
    assert str(Path(console.index).parent) == service["tmpfs"][0].partition(":")[0]
    assert service["environment"]["CARTSYNC_HTTP__PORT"] == str(console.port)


def test_compose_names_files_and_services_that_there_are() -> None:
    """Mounted files exist, services wait for services, and Prometheus scrapes those of compose."""
    folder = DEPLOY / "compose"
    services = yaml_of(folder / "compose.yaml")["services"]
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert not source.startswith(".") or (folder / source).exists(), f"{name}: {source}"
        assert set(service.get("depends_on", {})) <= services.keys()
    (scraped,) = yaml_of(folder / "prometheus.yaml")["scrape_configs"]
    assert set(scraped["dns_sd_configs"][0]["names"]) <= services.keys()


@pytest.mark.parametrize("unit", UNITS, ids=[unit.name for unit in UNITS])
def test_units_run_commands_that_there_are(unit: Path) -> None:
    """Each runs a command of cartsync, does not restart what needs a person, and waits for the end of a drain."""
    text = unit.read_text()
    (command,) = re.findall(r"^ExecStart=/opt/cartsync/bin/cartsync (\w+)$", text, re.MULTILINE)
    commands = {known.name or getattr(known.callback, "__name__", "") for known in app.registered_commands}
    assert command in commands | {known.name for known in app.registered_groups}
    assert "RestartPreventExitStatus=64 72" in text
    if command == "run":
        assert "TimeoutStopSec=40s" in text


@pytest.mark.parametrize("unit", UNITS, ids=[unit.name for unit in UNITS])
def test_systemd_understands_the_units(unit: Path, tmp_path: Path) -> None:
    """systemd's own tool finds nothing wrong but that cartsync is not installed in /opt here."""
    tool = program("systemd-analyze")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/cartsync/bin/cartsync", "/bin/true"))
    done = subprocess.run([tool, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
