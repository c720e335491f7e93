"""The Helm chart and the plain manifests of deploy/.

A real API server takes every object; the containers of the rendered pod run as processes. What is left
to a kubelet: to make containers of the images, and to call the probes.
"""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.integration.charts import CHART, PodVolumes, helm, named, render
from tests.integration.clusters import Cluster
from tests.integration.conditions import PATIENCE_S
from tests.integration.servers import (
    Authority,
    PostgresServer,
    RedisServer,
    build_bundle,
    free_port,
    opa_program,
)

_ROOT = Path(__file__).resolve().parents[2]
_PLAIN = _ROOT / "deploy/kubernetes"
_NAMESPACE = "mcp-system"
_ACCOUNT = f"system:serviceaccount:{_NAMESPACE}:mcp-server"
_SECRETS = {"jwt_secret": "s" * 32, "redis_password": "r", "database_password": "d"}
_VALUES: dict[str, Any] = {
    "credentials": {"existingSecret": "mcp"},
    "migrations": {"existingSecret": "owner"},
    "policy": {"existingConfigMap": "policies"},
}


# --- objects --------------------------------------------------------------------------------------


def create(cluster: Cluster, document: Mapping[str, Any]) -> None:
    """Create an object; unknown fields are errors, and a warning (pod security) is one too."""
    version = document["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    (resource,) = (
        each
        for each in cluster.http.get(root).json()["resources"]
        if each["kind"] == document["kind"] and "/" not in each["name"]
    )
    namespace = document["metadata"].get("namespace")
    assert resource["namespaced"] == (namespace is not None)
    place = f"/namespaces/{namespace}" if namespace else ""
    answer = cluster.http.post(
        f"{root}{place}/{resource['name']}",
        params={"fieldValidation": "Strict"},
        json=dict(document),
    )
    assert (answer.status_code, answer.headers.get("warning")) == (201, None), answer.text


def plain(name: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all((_PLAIN / f"{name}.yaml").read_text()) if each]


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Cluster:
    """A cluster with the plain manifests."""
    for name in ("namespace", "migrations", "server"):
        for document in plain(name):
            create(cluster, document)
    return cluster


def test_the_namespace_admits_the_pods_of_the_plain_manifests(installed: Cluster) -> None:
    """The namespace enforces `restricted`: a controller may make the pods, nobody a privileged one."""
    until = time.monotonic() + PATIENCE_S
    while not (pods := installed.read("Pod", _NAMESPACE)["items"]):
        assert time.monotonic() < until, installed.read("ReplicaSet", _NAMESPACE)
        time.sleep(0.1)
    job = named(plain("migrations"), "Job")
    template = {**job["spec"]["template"]["metadata"], "name": "migrations"}
    create(
        installed,
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**template, "namespace": _NAMESPACE},
            "spec": job["spec"]["template"]["spec"],
        },
    )
    refused = installed.http.post(
        f"/api/v1/namespaces/{_NAMESPACE}/pods",
        json={
            "metadata": {"name": "root"},
            "spec": {"containers": [{"name": "main", "image": "registry.test/main:1"}]},
        },
    )

    spec = pods[0]["spec"]
    assert [each["name"] for each in spec["containers"]] == ["server"]
    assert [(each["name"], each["restartPolicy"]) for each in spec["initContainers"]] == [
        ("opa", "Always")
    ]
    assert spec["containers"][0]["resources"] == {
        "requests": {"cpu": "250m", "memory": "256Mi"},
        "limits": {"cpu": "500m", "memory": "512Mi"},
    }
    assert refused.status_code == 403
    assert 'violates PodSecurity "restricted' in refused.json()["message"]


@pytest.mark.parametrize(
    ("verb", "group", "resource", "allowed"),
    [
        ("list", "", "pods", True),
        ("get", "", "pods/log", True),
        ("list", "", "nodes", True),
        ("list", "apps", "deployments", True),
        ("update", "apps", "deployments/scale", False),
        ("patch", "apps", "deployments", False),
        ("get", "", "secrets", False),
        ("create", "", "pods/exec", False),
    ],
)
def test_the_service_account_may_read_and_nothing_else(
    installed: Cluster, verb: str, group: str, resource: str, allowed: bool
) -> None:
    name, _, subresource = resource.partition("/")
    review = {
        "spec": {
            "user": _ACCOUNT,
            "resourceAttributes": {
                "namespace": "production",
                "verb": verb,
                "group": group,
                "resource": name,
                "subresource": subresource,
            },
        }
    }
    answer = installed.http.post(
        "/apis/authorization.k8s.io/v1/subjectaccessreviews", json=review
    ).json()

    assert answer["status"]["allowed"] is allowed


def test_with_all_tools_on_the_role_is_that_of_the_documentation(tmp_path: Path) -> None:
    documented = {
        each["metadata"]["name"]: each["rules"]
        for each in yaml.safe_load_all((_ROOT / "docs/examples/kubernetes-roles.yaml").read_text())
    }

    every = render(tmp_path, {**_VALUES, "rbac": {"scale": True, "restart": True}})
    impersonating = render(
        tmp_path,
        {
            **_VALUES,
            "rbac": {"impersonateGroups": ["mcp:viewer", "mcp:operator", "mcp:admin", "team-a"]},
            "settings": {"tools": {"kubernetes": {"impersonate": True}}},
        },
    )

    assert named(every, "ClusterRole")["rules"] == documented["mcp-server"]
    assert named(impersonating, "ClusterRole")["rules"] == documented["mcp-impersonator"]


def test_without_a_cluster_of_its_own_a_pod_has_no_token(tmp_path: Path) -> None:
    objects = render(tmp_path, {**_VALUES, "settings": {"tools": {"kubernetes": None}}})

    assert {each["kind"] for each in objects} & {"ClusterRole", "ClusterRoleBinding"} == set()
    pod = named(objects, "Deployment")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False


def test_namespaces_of_the_tools_bound_what_the_account_sees(tmp_path: Path) -> None:
    objects = render(tmp_path, {**_VALUES, "rbac": {"namespaces": ["team-a", "team-b"]}})

    bindings = [each for each in objects if each["kind"] == "RoleBinding"]
    assert [each["metadata"]["namespace"] for each in bindings] == ["team-a", "team-b"]
    assert "ClusterRoleBinding" not in {each["kind"] for each in objects}
    resources = {
        name for rule in named(objects, "ClusterRole")["rules"] for name in rule["resources"]
    }
    assert resources & {"nodes", "namespaces"} == set()


def test_the_objects_that_are_off_by_default_are_complete(cluster: Cluster, tmp_path: Path) -> None:
    """With mutual TLS, an own Secret and ConfigMap, and the objects of other projects."""
    objects = render(
        tmp_path,
        {
            "credentials": {"values": _SECRETS},
            "migrations": {"credentials": {"database_owner_password": "o"}},
            "policy": {"url": "https://bundles.test/mcp/bundle.tar.gz", **_key(), "tokenKey": "t"},
            "tls": {"existingSecret": "mcp-tls", "allowedPeers": ["ingress.test"]},
            "gateway": {"enabled": True, "parentRefs": [{"name": "public"}]},
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "autoscaling": {"enabled": False},
        },
    )
    create(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mcp-other"}})
    foreign = {"HTTPRoute", "ServiceMonitor"}
    for document in objects:
        if document["kind"] not in foreign:
            if "namespace" in document["metadata"]:
                document["metadata"]["namespace"] = "mcp-other"
            create(cluster, document)

    settings = yaml.safe_load(named(objects, "ConfigMap", "mcp")["data"]["config.yaml"])
    assert settings["listen"]["tls"]["cert"] == "/etc/mcp_server/tls/tls.crt"
    assert settings["listen"]["allowed_peers"] == ["ingress.test"]
    opa = yaml.safe_load(named(objects, "ConfigMap", "mcp-opa")["data"]["config.yaml"])
    assert opa["services"]["policies"]["url"] == "https://bundles.test/mcp"
    assert opa["bundles"]["mcp"]["resource"] == "bundle.tar.gz"
    assert named(objects, "Deployment")["spec"]["replicas"] == 3
    assert named(objects, "HTTPRoute")["spec"]["hostnames"] == ["mcp.example.com"]
    assert named(objects, "ServiceMonitor")["metadata"]["labels"]["release"] == "prometheus"
    assert "Ingress" not in {each["kind"] for each in objects}


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicaCount": "three"}, "at '/replicaCount': got string, want integer"),
        ({"replicas": 3}, "additional properties 'replicas' not allowed"),
        (
            {"settings": {"listen": {"port": "8443"}}},
            "at '/settings/listen/port': got string, want integer",
        ),
        (
            {"settings": {"databse": {"host": "db"}}},
            "at '/settings': additional properties 'databse' not allowed",
        ),
        ({"image": {"digest": "latest"}}, "at '/image/digest'"),
        ({"policy": {"url": "http://bundles.test/b.tar.gz"}}, "at '/policy/url'"),
        ({"policy": {"existingConfigMap": ""}}, "set exactly one of bundle, existingConfigMap"),
        ({"policy": {"bundle": "QQ=="}}, "set exactly one of bundle, existingConfigMap and url"),
        (
            {"policy": {"existingConfigMap": "", "bundle": "QQ=="}},
            "policy.verificationKey: set the public key",
        ),
        (
            {"credentials": {"existingSecret": "", "values": {"jwt_secret": "s"}}},
            "redis_password is missing; set credentials.existingSecret",
        ),
        ({"migrations": {"existingSecret": ""}}, "database_owner_password is missing"),
        ({"tls": {"existingSecret": "mcp-tls"}}, "tls.allowedPeers: name the DNS names"),
        ({"gateway": {"enabled": True}}, "gateway.parentRefs: name the gateway"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_value_that_cannot_work_is_refused_by_name(
    tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(_VALUES))
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(values))

    done = helm(
        *("template", "mcp", str(CHART), "-f", str(tmp_path / "good.yaml")),
        *("-f", str(tmp_path / "bad.yaml")),
    )

    assert done.returncode != 0
    assert said in done.stderr
    assert done.stdout == ""


def test_the_chart_passes_helm_lint(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(_VALUES))

    done = helm("lint", "--strict", str(CHART), "-f", str(tmp_path / "values.yaml"))

    assert done.returncode == 0, done.stdout + done.stderr


# --- a pod as processes ---------------------------------------------------------------------------


def _key(key: ec.EllipticCurvePrivateKey | None = None) -> dict[str, str]:
    public = (key or ec.generate_private_key(ec.SECP256R1())).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return {"verificationKey": pem.decode()}


@pytest.fixture(scope="module")
def signing_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def signed_bundle(workspace: Path, signing_key: ec.EllipticCurvePrivateKey) -> Path:
    """The shipped policies, signed as `policyctl build` does."""
    directory = workspace / "signed"
    directory.mkdir()
    build_bundle(_ROOT / "policies", directory / "plain.tar.gz")
    pem = signing_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (directory / "key.pem").write_bytes(pem)
    (directory / "claims.json").write_text(json.dumps({"keyid": "mcp", "scope": "write"}))
    subprocess.run(
        [
            *(opa_program(), "build", "--bundle", "plain.tar.stage", "--output", "bundle.tar.gz"),
            *("--signing-alg", "ES256", "--signing-key", "key.pem", "--claims-file", "claims.json"),
        ],
        cwd=directory,
        check=True,
    )
    return directory / "bundle.tar.gz"


@pytest.fixture
def pod_values(
    postgres: PostgresServer,
    redis_server: RedisServer,
    authority: Authority,
    signed_bundle: Path,
    signing_key: ec.EllipticCurvePrivateKey,
) -> Iterator[dict[str, Any]]:
    """Values with the tests' servers, an empty database, and a bundle in the chart's ConfigMap."""
    postgres.create_database("helm_chart")
    ca = authority.ca.read_text()
    yield {
        "settings": {
            "listen": {"port": free_port(), "drain_s": 0.2},
            "telemetry": {"port": free_port()},
            "counters": {"url": redis_server.url},
            "database": {"host": "127.0.0.1", "port": postgres.port, "name": "helm_chart"},
            "tools": {"kubernetes": None},
        },
        "credentials": {
            "values": {
                "jwt_secret": "s" * 32,
                "redis_ca": ca,
                "database_ca": ca,
                "redis_password": redis_server.password,
                "database_password": postgres.server_password,
            }
        },
        "migrations": {
            "credentials": {
                "database_owner_password": postgres.owner_password,
                "database_ca": ca,
            }
        },
        "policy": {
            "bundle": base64.b64encode(signed_bundle.read_bytes()).decode(),
            **_key(signing_key),
        },
    }
    postgres.drop_database("helm_chart")


def _pod(directory: Path, objects: list[dict[str, Any]], kind: str) -> PodVolumes:
    template = json.loads(json.dumps(named(objects, kind)["spec"]["template"]))
    port = free_port()
    for each in template["spec"].get("initContainers", ()):
        # Two pods on this machine cannot both have OPA's port.
        each["args"] = [argument.replace(":8282", f":{port}") for argument in each["args"]]
        each["ports"][0]["containerPort"] = port
    return PodVolumes(directory, template, objects)


def test_the_containers_of_a_pod_become_ready_after_the_migrations(
    workspace: Path, tmp_path: Path, pod_values: dict[str, Any]
) -> None:
    objects = render(tmp_path, pod_values)
    pod = _pod(workspace / "pod", objects, "Deployment")
    opa, server = pod.container("opa"), pod.container("server")

    migrated = _pod(workspace / "job", objects, "Job").container("migrations").run()
    opa.start()
    server.start()
    try:
        until = time.monotonic() + PATIENCE_S
        while not server.passes("readinessProbe"):
            assert time.monotonic() < until, server.log.read_text()
            time.sleep(0.1)
        assert server.passes("livenessProbe")
    finally:
        server.stop()
        opa.stop()

    assert migrated.returncode == 0, migrated.stderr
    assert "applied: 0001" in migrated.stdout
    assert '"node": "pod-1"' in server.log.read_text()


def test_a_pod_with_a_bundle_of_another_key_never_becomes_ready(
    workspace: Path, tmp_path: Path, pod_values: dict[str, Any]
) -> None:
    pod_values["policy"].update(_key())
    objects = render(tmp_path, pod_values)
    _pod(workspace / "job2", objects, "Job").container("migrations").run()
    pod = _pod(workspace / "pod2", objects, "Deployment")
    opa, server = pod.container("opa"), pod.container("server")

    opa.start()
    server.start()
    try:
        until = time.monotonic() + PATIENCE_S
        while "failed to verify JWT signature" not in opa.log.read_text():
            assert time.monotonic() < until, opa.log.read_text()
            time.sleep(0.1)
        time.sleep(2)  # two checks of the readiness
        assert not server.passes("readinessProbe")
        assert server.passes("livenessProbe")
    finally:
        server.stop()
        opa.stop()


def test_a_pod_without_a_secret_that_its_settings_name_does_not_serve(
    workspace: Path, tmp_path: Path, pod_values: dict[str, Any]
) -> None:
    del pod_values["credentials"]["values"]["database_ca"]
    pod = _pod(workspace / "pod3", render(tmp_path, pod_values), "Deployment")

    done = pod.container("server").run()

    assert done.returncode != 0
    assert "credentials/database_ca" in done.stderr
