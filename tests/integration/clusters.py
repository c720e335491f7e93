"""A real Kubernetes cluster on loopback: etcd, API server, controller manager, and kwok for nodes.

What is simulated is the kubelet alone: pods on a node become ready at once, and their logs come from
a file. A pod without a node stays pending, and its status is whatever a test writes into it.
"""

from __future__ import annotations

import functools
import json
import signal
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from mcp_server.settings import ClusterSettings, Secret
from tests.integration.servers import Authority, Server, ServerFailed, free_port, program

__all__ = ["Cluster", "deployment", "pod", "programs"]

_ROOT = Path(__file__).resolve().parents[2]
_STAGES = Path(__file__).with_name("kwok_stages.yaml")
# The role that the documentation gives operators is the one that the tests run with.
_ROLES = _ROOT / "docs" / "examples" / "kubernetes-roles.yaml"
_CONTROLLERS = (
    "deployment-controller,replicaset-controller,statefulset-controller,daemonset-controller,"
    "endpointslice-controller,garbage-collector-controller,namespace-controller"
)
# name of a token: user, groups
_USERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "admin": ("admin", ("system:masters",)),
    "server": ("mcp-server", ()),
    "impersonator": ("mcp-impersonator", ()),
    "nobody": ("nobody", ()),
    "throttled": ("throttled", ()),
}


@functools.cache
def programs() -> Path:
    """Return the directory of the programs that scripts/build_kubernetes built."""
    where = subprocess.run(
        [_ROOT / "scripts" / "build_kubernetes", "--where"],
        capture_output=True,
        text=True,
        check=True,
    )
    directory = Path(where.stdout.strip())
    if not (directory / "kwok").exists():
        raise ServerFailed(
            f"{directory} is missing: run scripts/bootstrap --tests, or scripts/build_kubernetes"
        )
    return directory


def _ok(url: str, authority: Authority | None = None) -> bool:
    """Whether a GET as the administrator answers 200."""
    request = urllib.request.Request(url, headers={"Authorization": "Bearer admin-token"})
    context = None
    if authority is not None:
        context = ssl.create_default_context(cafile=str(authority.ca))
    with urllib.request.urlopen(request, timeout=2, context=context) as answer:
        return bool(answer.status == 200)


class _Etcd(Server):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.url = f"http://127.0.0.1:{free_port()}"
        self._peer = f"http://127.0.0.1:{free_port()}"

    def command(self) -> list[str]:
        return [
            *(program("etcd", "etcd-server"), "--data-dir", str(self.directory / "data")),
            *("--listen-client-urls", self.url, "--advertise-client-urls", self.url),
            *("--listen-peer-urls", self._peer, "--initial-advertise-peer-urls", self._peer),
            *("--initial-cluster", f"default={self._peer}", "--logger", "zap"),
            *("--quota-backend-bytes", str(2**30)),
        ]

    def ready(self) -> bool:
        return _ok(f"{self.url}/health")


class ApiServer(Server):
    """kube-apiserver with static tokens, certificates of the tests' authority, and RBAC.

    Attributes:
        url: https, with a certificate of the tests' authority.
    """

    # On SIGTERM it waits for its watches to end, which they do not; what it knows is in etcd.
    stop_signal = signal.SIGKILL

    def __init__(self, directory: Path, authority: Authority, etcd: str) -> None:
        super().__init__(directory)
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self._authority = authority
        self._etcd = etcd
        self._identity = authority.identity("kube-apiserver")
        self._tokens = directory / "tokens.csv"
        self._tokens.write_text(
            "".join(
                f'{name}-token,{user},{user},"{",".join(groups)}"\n'
                for name, (user, groups) in _USERS.items()
            )
        )
        self._key = directory / "service_accounts.key"
        self._key.write_bytes(
            rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    def command(self) -> list[str]:
        return [
            *(str(programs() / "kube-apiserver"), "--etcd-servers", self._etcd),
            *("--bind-address=127.0.0.1", f"--secure-port={self.port}"),
            f"--tls-cert-file={self._identity.cert}",
            f"--tls-private-key-file={self._identity.key}",
            f"--token-auth-file={self._tokens}",
            f"--client-ca-file={self._authority.ca}",
            *("--authorization-mode=RBAC", "--anonymous-auth=false"),
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._key}",
            f"--service-account-signing-key-file={self._key}",
            "--service-cluster-ip-range=10.96.0.0/16",
            # Pods of these tests need no accounts, and there is no controller that makes any.
            "--disable-admission-plugins=ServiceAccount",
            "--shutdown-delay-duration=0s",
        ]

    def ready(self) -> bool:
        return _ok(f"{self.url}/readyz", self._authority)


class _ControllerManager(Server):
    def __init__(self, directory: Path, authority: Authority, kubeconfig: Path) -> None:
        super().__init__(directory)
        self._port = free_port()
        self._authority = authority
        self._identity = authority.identity("kube-controller-manager")
        self._kubeconfig = kubeconfig

    def command(self) -> list[str]:
        return [
            *(str(programs() / "kube-controller-manager"), f"--kubeconfig={self._kubeconfig}"),
            f"--authentication-kubeconfig={self._kubeconfig}",
            f"--authorization-kubeconfig={self._kubeconfig}",
            *("--bind-address=127.0.0.1", f"--secure-port={self._port}"),
            f"--tls-cert-file={self._identity.cert}",
            f"--tls-private-key-file={self._identity.key}",
            *("--leader-elect=false", f"--controllers={_CONTROLLERS}"),
            *("--kube-api-qps=500", "--kube-api-burst=1000"),
        ]

    def ready(self) -> bool:
        return _ok(f"https://127.0.0.1:{self._port}/healthz", self._authority)


class _Kwok(Server):
    def __init__(self, directory: Path, kubeconfig: Path, logs: Path, previous: Path) -> None:
        super().__init__(directory)
        self._port = free_port()
        self._kubeconfig = kubeconfig
        self._config = directory / "config.yaml"
        cluster_logs = {
            "apiVersion": "kwok.x-k8s.io/v1alpha1",
            "kind": "ClusterLogs",
            "metadata": {"name": "all"},
            "spec": {"logs": [{"logsFile": str(logs), "previousLogsFile": str(previous)}]},
        }
        self._config.write_text(_STAGES.read_text() + "---\n" + yaml.safe_dump(cluster_logs))

    def command(self) -> list[str]:
        return [
            *(str(programs() / "kwok"), f"--kubeconfig={self._kubeconfig}"),
            *(f"--config={self._config}", "--manage-all-nodes=true"),
            *("--node-ip=127.0.0.1", f"--node-port={self._port}", "--cidr=10.244.0.0/16"),
            f"--server-address=127.0.0.1:{self._port}",
            # Leases settle which of several kwoks plays a node, and there is one.
            "--node-lease-duration-seconds=0",
        ]

    def ready(self) -> bool:
        return _ok(f"http://127.0.0.1:{self._port}/healthz")


class Cluster:
    """A whole cluster with one simulated node, `node-1`.

    Attributes:
        api: the API server, which fault tests stop and restart.
        kubelet: what plays the node; while it is away the node's pods have no logs.
        http: a client that may do everything.
        logs: what the simulated kubelet answers as the log of every container.
        previous_logs: the same for the container before a restart.
    """

    def __init__(self, directory: Path, authority: Authority) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._authority = authority
        self._etcd = _Etcd(directory / "etcd")
        self.api = ApiServer(directory / "apiserver", authority, self._etcd.url)
        self.logs = directory / "container.log"
        self.previous_logs = directory / "previous.log"
        self.write_log([])
        self.write_log([], previous=True)
        self.kubeconfig = self.write_kubeconfig("admin")
        self._manager = _ControllerManager(directory / "manager", authority, self.kubeconfig)
        self.kubelet = _Kwok(directory / "kwok", self.kubeconfig, self.logs, self.previous_logs)
        self.http = client(self.api.url, authority, "admin")

    def __enter__(self) -> Cluster:
        with ExitStack() as started:
            started.callback(self.http.close)
            for part in (self._etcd, self.api, self._manager, self.kubelet):
                started.callback(part.stop)
                part.start()
            self._furnish()
            self._started = started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._started.close()

    def settings(self, token: str = "server") -> ClusterSettings:
        """Return the server's settings for this cluster, with the token of that name."""
        return ClusterSettings(
            url=self.api.url,
            token=Secret(file=self.token_file(token)),
            ca=self._authority.ca,
        )

    def token_file(self, name: str) -> Path:
        """Return a file with the token of that name (unknown names: a wrong token)."""
        file = self._directory / f"{name}.token"
        file.write_text(f"{name}-token\n")
        return file

    def write_kubeconfig(self, token: str, *, proxy: str | None = None) -> Path:
        """Return a kubeconfig with one context, `tests`, which is not the current one for others."""
        file = self._directory / f"{token}{'-by-proxy' if proxy else ''}.kubeconfig"
        cluster = {"server": self.api.url, "certificate-authority": str(self._authority.ca)}
        if proxy is not None:
            cluster["proxy-url"] = proxy
        file.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": cluster}],
                    "users": [{"name": "u", "user": {"token": f"{token}-token"}}],
                    "contexts": [{"name": "tests", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "tests",
                }
            )
        )
        return file

    def write_log(self, lines: Iterable[str], *, previous: bool = False) -> None:
        """Set what every container's log holds, in the format that container runtimes write."""
        file = self.previous_logs if previous else self.logs
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
        file.write_text("".join(f"{now} stdout F {line}\n" for line in lines))

    def compact(self) -> None:
        """Make etcd forget all states of the cluster but the present one."""
        with httpx2.Client(base_url=self._etcd.url, timeout=90) as etcd:
            header = etcd.post("/v3/kv/range", json={"key": "AA=="}).json()["header"]
            answer = etcd.post("/v3/kv/compaction", json={"revision": header["revision"]})
        if answer.status_code != 200:
            raise ServerFailed(f"etcd did not forget: {answer.text}")

    def create(self, *objects: Mapping[str, Any]) -> None:
        """Create objects, each with its kind and namespace.

        Raises:
            ServerFailed: the API server refuses one.
        """
        for document in objects:
            self._send("POST", _collection(document), document)

    def create_many(self, objects: Sequence[Mapping[str, Any]]) -> None:
        """Create objects as fast as the API server takes them."""
        with ThreadPoolExecutor(max_workers=16) as pool:
            list(pool.map(self.create, objects))

    def patch_status(self, kind: str, namespace: str, name: str, status: Mapping[str, Any]) -> None:
        """Write an object's status, as its kubelet or controller would."""
        path = _collection({"kind": kind, "metadata": {"namespace": namespace}})
        self._send("PATCH", f"{path}/{name}/status", {"status": status})

    def patch(self, kind: str, namespace: str, name: str, change: Mapping[str, Any]) -> None:
        """Change an object by a strategic merge patch."""
        path = _collection({"kind": kind, "metadata": {"namespace": namespace}})
        self._send("PATCH", f"{path}/{name}", change)

    def read(self, kind: str, namespace: str, name: str = "") -> dict[str, Any]:
        """Return an object, or a list of all of that kind in the namespace."""
        path = _collection({"kind": kind, "metadata": {"namespace": namespace}})
        answer: dict[str, Any] = self.http.get(f"{path}/{name}".rstrip("/")).json()
        return answer

    def evict(self, namespace: str, name: str) -> None:
        """Evict a pod through the API, as `kubectl drain` does."""
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
        }
        self._send("POST", f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", eviction)

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object and what it owns."""
        path = _collection({"kind": kind, "metadata": {"namespace": namespace}})
        self.http.delete(f"{path}/{name}", params={"propagationPolicy": "Background"})

    @contextmanager
    def busy(self, token: str) -> Iterator[None]:
        """Keep a call of that user under way, which holds the only seat of `_throttle`.

        The call announces a body and does not send it. The API server asks for the body once its
        handler reads it, which is after the call was given the seat.
        """
        context = ssl.create_default_context(cafile=str(self._authority.ca))
        head = (
            "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews HTTP/1.1",
            "Host: 127.0.0.1",
            f"Authorization: Bearer {token}-token",
            "Content-Type: application/json",
            "Content-Length: 2",
            "Expect: 100-continue",
        )
        with (
            socket.create_connection(("127.0.0.1", self.api.port), timeout=90) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            connection.sendall("\r\n".join((*head, "", "")).encode())
            answer = connection.recv(4096).decode()
            if not answer.startswith("HTTP/1.1 100 "):
                raise ServerFailed(f"the call of {token} is not under way: {answer}")
            yield

    def _send(self, method: str, path: str, document: Mapping[str, Any]) -> None:
        kind = "strategic-merge-patch+json" if method == "PATCH" else "json"
        answer = self.http.request(
            method,
            path,
            content=json.dumps(document),
            headers={"Content-Type": f"application/{kind}"},
        )
        if answer.status_code not in (200, 201):
            raise ServerFailed(f"{method} {path}: {answer.text}")

    def _furnish(self) -> None:
        names = ("production", "staging", "development", "crowd")
        self.create(
            *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}} for n in names)
        )
        self.create(*yaml.safe_load_all(_ROLES.read_text()))
        self.create(
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}},
            *_bindings(),
            *_throttle(),
        )


def client(url: str, authority: Authority, token: str) -> httpx2.Client:
    """Return a client of the API server with the token of that name."""
    return httpx2.Client(
        base_url=url,
        headers={"Authorization": f"Bearer {token}-token"},
        verify=ssl.create_default_context(cafile=str(authority.ca)),
        timeout=90,
    )


def pod(name: str, namespace: str, *, node: str | None = None, **spec: Any) -> dict[str, Any]:
    """Return a pod of one container, `main`; without a node it stays pending."""
    metadata = {"name": name, "namespace": namespace, **spec.pop("metadata", {})}
    containers = [{"name": "main", "image": "registry.test/main:1"}]
    where = {} if node is None else {"nodeName": node}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": containers, **where, **spec},
    }


def deployment(
    name: str, namespace: str, *, replicas: int = 2, node: str | None = "node-1", **spec: Any
) -> dict[str, Any]:
    """Return a deployment of pods with the label `app`; without a node its rollout hangs."""
    # Without a grace period a deleted pod is gone at once, whatever the simulated kubelet does.
    template = pod("", "", node=node, terminationGracePeriodSeconds=0)["spec"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": template},
            **spec,
        },
    }


_GROUPS = {
    "Deployment": "/apis/apps/v1",
    "ReplicaSet": "/apis/apps/v1",
    "StatefulSet": "/apis/apps/v1",
    "DaemonSet": "/apis/apps/v1",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1",
    "Role": "/apis/rbac.authorization.k8s.io/v1",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1",
    "EndpointSlice": "/apis/discovery.k8s.io/v1",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2",
    "ValidatingWebhookConfiguration": "/apis/admissionregistration.k8s.io/v1",
    "FlowSchema": "/apis/flowcontrol.apiserver.k8s.io/v1",
    "PriorityLevelConfiguration": "/apis/flowcontrol.apiserver.k8s.io/v1",
}


def _collection(document: Mapping[str, Any]) -> str:
    """Return the path of the collection that an object belongs to."""
    kind = str(document["kind"])
    namespace = document["metadata"].get("namespace")
    place = f"/namespaces/{namespace}" if namespace else ""
    return f"{_GROUPS.get(kind, '/api/v1')}{place}/{kind.lower()}s"


def _bindings() -> Iterator[dict[str, Any]]:
    api = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    group = "rbac.authorization.k8s.io"
    roles = {"mcp-server": "mcp-server", "throttled": "mcp-server"}
    for user, role in {**roles, "mcp-impersonator": "mcp-impersonator"}.items():
        yield {
            **api,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": user},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        }
    # With impersonation: alice by her name, and whoever is in a group, in one namespace.
    for kind, name in (("User", "alice"), ("Group", "team-a")):
        yield {
            **api,
            "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": "development"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "mcp-server"},
            "subjects": [{"apiGroup": group, "kind": kind, "name": name}],
        }


def _throttle() -> Iterator[dict[str, Any]]:
    """A priority level with a single seat, for one user: a second call at the same time gets 429."""
    api = {"apiVersion": "flowcontrol.apiserver.k8s.io/v1"}
    yield {
        **api,
        "kind": "PriorityLevelConfiguration",
        "metadata": {"name": "none"},
        "spec": {
            "type": "Limited",
            "limited": {
                "nominalConcurrencyShares": 0,
                "lendablePercent": 0,
                "borrowingLimitPercent": 0,
                "limitResponse": {"type": "Reject"},
            },
        },
    }
    yield {
        **api,
        "kind": "FlowSchema",
        "metadata": {"name": "none"},
        "spec": {
            "priorityLevelConfiguration": {"name": "none"},
            "matchingPrecedence": 2,
            "rules": [
                {
                    "subjects": [{"kind": "User", "user": {"name": "throttled"}}],
                    "resourceRules": [
                        {
                            "verbs": ["*"],
                            "apiGroups": ["*"],
                            "resources": ["*"],
                            "clusterScope": True,
                            "namespaces": ["*"],
                        }
                    ],
                }
            ],
        },
    }
