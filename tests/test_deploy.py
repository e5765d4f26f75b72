"""The files in deploy/ and the Dockerfile: what they promise to operators, and to the program's own settings."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
IMAGE_USER = 10001
PROBES = {"/livez", "/readyz"}


@pytest.fixture
def compose():
    return load(DEPLOY / "compose.yaml")


@pytest.fixture
def pod():
    return load(DEPLOY / "kubernetes" / "deployment.yaml")["spec"]["template"]["spec"]


@pytest.fixture
def sidecar(pod):
    return named(pod["initContainers"], "inbox")


def test_compose_sets_only_settings_that_exist(compose):
    """
    Every variable that compose gives to inbox is a setting of inbox, and its value is accepted.
    """
    environment = compose["services"]["inbox"]["environment"]

    assert unknown(environment) == set()
    assert accepted(environment)


def test_kubernetes_sets_only_settings_that_exist(sidecar):
    """
    Every variable that the sidecar gets is a setting of inbox, and its value is accepted.
    """
    environment = {variable["name"]: variable["value"] for variable in sidecar["env"]}

    assert unknown(environment) == set()
    assert accepted(environment)


def test_compose_waits_for_a_healthy_database(compose):
    """
    Inbox starts when PostgreSQL answers, not merely when its container exists.
    """
    services = compose["services"]

    assert services["inbox"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert "pg_isready" in services["database"]["healthcheck"]["test"]


def test_compose_shuts_inbox_in(compose):
    """
    Inbox runs without capabilities, on a read-only root, and cannot gain privileges.
    """
    inbox = compose["services"]["inbox"]

    assert inbox["read_only"] is True
    assert inbox["cap_drop"] == ["ALL"]
    assert inbox["security_opt"] == ["no-new-privileges:true"]


def test_compose_publishes_the_probes_on_loopback_only(compose):
    """
    The page and the metrics, which ask for no password, are not open to the network.
    """
    assert all(port.startswith("127.0.0.1:") for port in compose["services"]["inbox"]["ports"])


def test_compose_holds_no_password(compose):
    """
    Both sides read the password from the same secret file.
    """
    text = (DEPLOY / "compose.yaml").read_text("utf-8")

    assert re.findall(r"PASSWORD: .*", text) == []
    assert [compose["services"][name]["secrets"] for name in ("database", "inbox")] == [["database_password"]] * 2


def test_the_grace_of_the_platform_is_longer_than_ours(compose, pod, sidecar):
    """
    Nobody kills inbox while it still finishes what it holds.
    """
    in_compose = compose["services"]["inbox"]
    in_pod = {variable["name"]: variable["value"] for variable in sidecar["env"]}

    assert int(in_compose["environment"]["SHUTDOWN_GRACE_SECONDS"]) < int(in_compose["stop_grace_period"].rstrip("s"))
    assert int(in_pod["SHUTDOWN_GRACE_SECONDS"]) < pod["terminationGracePeriodSeconds"]


def test_the_sidecar_is_a_native_one(sidecar):
    """
    Inbox starts before the application and stops after it.
    """
    assert sidecar["restartPolicy"] == "Always"


def test_the_probes_ask_for_pages_that_exist(sidecar):
    """
    Liveness asks /livez and readiness /readyz, at an address where the kubelet is heard.
    """
    asked = {kind: sidecar[kind]["httpGet"]["path"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
    environment = {variable["name"]: variable["value"] for variable in sidecar["env"]}

    assert asked == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    assert environment["HTTP_HOST"] == "0.0.0.0"
    assert {str(port["containerPort"]) for port in sidecar["ports"]} == {environment["HTTP_PORT"]}


def test_the_pod_meets_the_restricted_profile(pod):
    """
    Every container fits the `restricted` pod security standard.
    """
    containers = [*pod["initContainers"], *pod["containers"]]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"].keys() == {"requests", "limits"}


def test_both_containers_see_one_volume_at_one_path(pod, sidecar):
    """
    A path that inbox hands to its neighbour leads there to the same file.
    """
    mounts = [
        {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}["shared"]
        for container in (sidecar, *pod["containers"])
    ]

    assert set(mounts) == {"/shared"}


def test_every_volume_that_is_mounted_is_declared(pod):
    """
    No mount leads nowhere, and no volume is idle.
    """
    declared = {volume["name"] for volume in pod["volumes"]}
    containers = [*pod["initContainers"], *pod["containers"]]

    assert {mount["name"] for container in containers for mount in container["volumeMounts"]} == declared


def test_kustomize_names_files_that_exist():
    """
    Everything that the kustomization lists lies beside it.
    """
    listed = load(DEPLOY / "kubernetes" / "kustomization.yaml")
    files = [*listed["resources"], *(name for maps in listed["configMapGenerator"] for name in maps["files"])]

    assert [name for name in files if not (DEPLOY / "kubernetes" / name).is_file()] == []
    assert "namespace" not in listed


def test_the_application_in_the_pod_is_the_example():
    """
    Kustomize reads no file outside its folder, so the copy there has to stay one.
    """
    copy = DEPLOY / "kubernetes" / "http_app.py"

    assert copy.read_text("utf-8") == (ROOT / "examples" / "http_app.py").read_text("utf-8")


def test_one_user_everywhere(compose, pod):
    """
    Image and pod agree on the user and group, so that files on the volume belong to both.
    """
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")

    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE) == [f"{IMAGE_USER}:{IMAGE_USER}"]
    assert {pod["securityContext"][key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {IMAGE_USER}
    assert "user" not in compose["services"]["inbox"]


def test_the_image_can_be_asked_stopped_and_slimmed():
    """
    The final stage has a health check on a real probe, the signal that inbox understands, and no pip install.
    """
    final = (ROOT / "Dockerfile").read_text("utf-8").split("\nFROM ")[-1]

    assert any(probe in final for probe in PROBES)
    assert "STOPSIGNAL SIGTERM" in final
    assert "pip" not in final
    assert 'ENTRYPOINT ["inbox"]\nCMD ["run"]' in final


def test_the_build_context_holds_what_the_image_copies():
    """
    Whatever the Dockerfile copies is let through by .dockerignore.
    """
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    let_through = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE))
    copied = {
        source for line in re.findall(r"^COPY (?!--)(.*)$", dockerfile, re.MULTILINE) for source in line.split()[:-1]
    }

    assert copied == let_through


def load(path):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed, so the YAML in deploy/ is not checked")
    return yaml.safe_load(path.read_text("utf-8"))


def named(containers, name):
    return next(container for container in containers if container["name"] == name)


def unknown(environment):
    from inbox.config import SECRET_SUFFIX, Config

    known = Config.model_fields.keys()
    return {name for name in environment if {name.lower(), name.removesuffix(SECRET_SUFFIX).lower()}.isdisjoint(known)}


def accepted(environment):
    """Return whether the settings take these values, the secrets' files aside, which are elsewhere."""
    from inbox.config import Config

    values = {name.lower(): value for name, value in environment.items() if not name.endswith("_FILE")}
    return Config(**values, _env_file=None).storage_base_path == Path("/shared")
