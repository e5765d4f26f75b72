"""The files in deploy/ and the Dockerfile: what they promise to operators, and to the program's own settings."""

import re
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path

import pytest
import yaml

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

    assert set() == unknown(environment)
    assert accepted(environment)


def test_kubernetes_sets_only_settings_that_exist(sidecar):
    """
    Every variable that the sidecar gets is a setting of inbox, and its value is accepted.
    """
    environment = {variable["name"]: variable["value"] for variable in sidecar["env"]}

    assert set() == unknown(environment)
    assert accepted(environment)


def test_compose_waits_for_a_healthy_database(compose):
    """
    Inbox starts when PostgreSQL answers, not merely when its container exists.
    """
    services = compose["services"]

    assert {"database": {"condition": "service_healthy"}} == services["inbox"]["depends_on"]
    assert "pg_isready" in services["database"]["healthcheck"]["test"]


def test_compose_shuts_inbox_in(compose):
    """
    Inbox runs without capabilities, on a read-only root, and cannot gain privileges.
    """
    inbox = compose["services"]["inbox"]

    assert inbox["read_only"] is True
    assert ["ALL"] == inbox["cap_drop"]
    assert ["no-new-privileges:true"] == inbox["security_opt"]


def test_compose_publishes_the_probes_on_loopback_only(compose):
    """
    The probes, which ask for no password, are not open to the network.
    """
    assert all(port.startswith("127.0.0.1:") for port in compose["services"]["inbox"]["ports"])


def test_compose_holds_no_password(compose):
    """
    Both sides read the password from the same secret file.
    """
    text = (DEPLOY / "compose.yaml").read_text("utf-8")

    assert [] == re.findall(r"PASSWORD: .*", text)
    assert [["database_password"]] * 2 == [compose["services"][name]["secrets"] for name in ("database", "inbox")]


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
    assert "Always" == sidecar["restartPolicy"]


def test_the_probes_ask_for_pages_that_exist(sidecar):
    """
    Liveness asks /livez and readiness /readyz, at an address where the kubelet is heard.
    """
    asked = {kind: sidecar[kind]["httpGet"]["path"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
    environment = {variable["name"]: variable["value"] for variable in sidecar["env"]}

    assert {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"} == asked
    assert "0.0.0.0" == environment["HTTP_HOST"]
    assert {environment["HTTP_PORT"]} == {str(port["containerPort"]) for port in sidecar["ports"]}


def test_the_pod_meets_the_restricted_profile(pod):
    """
    Every container fits the `restricted` pod security standard, on a read-only root and with its resources bounded.
    """
    containers = [*pod["initContainers"], *pod["containers"]]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert {"type": "RuntimeDefault"} == pod["securityContext"]["seccompProfile"]
    for container in containers:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert {"drop": ["ALL"]} == container["securityContext"]["capabilities"]
        assert {"requests", "limits"} == container["resources"].keys()


def test_both_containers_see_one_volume_at_one_path(pod, sidecar):
    """
    A path that inbox hands to its neighbour leads there to the same file.
    """
    mounts = [
        {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}["shared"]
        for container in (sidecar, *pod["containers"])
    ]

    assert {"/shared"} == set(mounts)


def test_every_volume_that_is_mounted_is_declared(pod):
    """
    No mount leads nowhere, and no volume is idle.
    """
    declared = {volume["name"] for volume in pod["volumes"]}
    containers = [*pod["initContainers"], *pod["containers"]]

    assert declared == {mount["name"] for container in containers for mount in container["volumeMounts"]}


def test_kustomize_names_files_that_exist():
    """
    Everything that the kustomization lists lies beside it.
    """
    listed = load(DEPLOY / "kubernetes" / "kustomization.yaml")
    files = [*listed["resources"], *(name for maps in listed["configMapGenerator"] for name in maps["files"])]

    assert [] == [name for name in files if not (DEPLOY / "kubernetes" / name).is_file()]
    assert "namespace" not in listed


@pytest.fixture
def kustomize():
    """Return a function that renders a folder, as a dict of kind to the one resource of that kind."""
    kubectl = shutil.which("kubectl") or pytest.skip("kubectl is not installed, so the manifests are not rendered")

    def render(folder):
        done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
        assert 0 == done.returncode, done.stderr
        resources = list(yaml.safe_load_all(done.stdout))
        by_kind = {resource["kind"]: resource for resource in resources}
        assert len(resources) == len(by_kind)
        return by_kind

    return render


def test_kustomize_renders_a_pod_that_finds_everything(kustomize):
    """
    What kubectl would apply refers to the volume, the secret and the code that come with it, and selects its own pod.
    """
    rendered = kustomize(DEPLOY / "kubernetes")
    template = rendered["Deployment"]["spec"]["template"]
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}

    assert {"ConfigMap", "Deployment", "PersistentVolumeClaim", "Secret"} == rendered.keys()
    assert (
        rendered["PersistentVolumeClaim"]["metadata"]["name"] == volumes["shared"]["persistentVolumeClaim"]["claimName"]
    )
    assert rendered["Secret"]["metadata"]["name"] == volumes["database"]["secret"]["secretName"]
    assert 0o440 == volumes["database"]["secret"]["defaultMode"]
    assert rendered["ConfigMap"]["metadata"]["name"] == volumes["code"]["configMap"]["name"]
    assert (ROOT / "examples" / "http_app.py").read_text("utf-8") == rendered["ConfigMap"]["data"]["http_app.py"]
    assert rendered["Deployment"]["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_the_secret_is_where_inbox_looks_for_it(kustomize, sidecar):
    """
    The file that DATABASE_URL_FILE names is a key of the mounted secret.
    """
    (variable,) = (variable for variable in sidecar["env"] if variable["name"] == "DATABASE_URL_FILE")
    (mount,) = (mount for mount in sidecar["volumeMounts"] if mount["name"] == "database")
    folder, _, key = variable["value"].rpartition("/")

    assert mount["mountPath"] == folder
    assert key in kustomize(DEPLOY / "kubernetes")["Secret"]["data"]


def test_the_overlay_in_the_readme_works(kustomize, tmp_path):
    """
    The overlay that the README shows replaces namespace, image and secret, and nothing of the example's secret stays.
    """
    (overlay,) = re.findall(
        r"```yaml\n(apiVersion: kustomize.*?)```", (DEPLOY / "README.md").read_text("utf-8"), re.DOTALL
    )
    shutil.copytree(DEPLOY / "kubernetes", tmp_path / "inbox" / "deploy" / "kubernetes")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(overlay)
    (mine / "database-url.txt").write_text("postgresql://elsewhere")
    rendered = kustomize(mine)
    image = named(rendered["Deployment"]["spec"]["template"]["spec"]["initContainers"], "inbox")["image"]

    assert {"my-app"} == {resource["metadata"]["namespace"] for resource in rendered.values()}
    assert "registry.example.org/inbox:0.1.0" == image
    assert {"DATABASE_URL": b64encode(b"postgresql://elsewhere").decode()} == rendered["Secret"]["data"]


def test_the_application_in_the_pod_is_the_example():
    """
    Kustomize reads no file outside its folder, so the copy there has to stay one.
    """
    copy = DEPLOY / "kubernetes" / "http_app.py"

    assert (ROOT / "examples" / "http_app.py").read_text("utf-8") == copy.read_text("utf-8")


def test_one_user_everywhere(compose, pod):
    """
    Image and pod agree on the user and group, so that files on the volume belong to both.
    """
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")

    assert [f"{IMAGE_USER}:{IMAGE_USER}"] == re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE)
    assert {IMAGE_USER} == {pod["securityContext"][key] for key in ("runAsUser", "runAsGroup", "fsGroup")}
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

    assert let_through == copied


def load(path):
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
