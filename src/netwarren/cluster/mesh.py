"""A cluster's mesh: which of its nodes and pods have a proxy, and what these know of its pods, services and policies.

Rules: a pod is carried and acknowledged, or untouched; every change is known to every proxy before the call that
made it returns; a cluster without a proxy pays nothing, this module included.
Does not belong here: what a proxy does (see `netwarren.mesh`).
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from netwarren.cluster.members import Pod
from netwarren.cluster.node_proxy import NodeProxy
from netwarren.cluster.service import Service as ServiceHandle
from netwarren.cluster.ztunnel_program import ZtunnelProgram
from netwarren.errors import (
    ConfigurationError,
    DuplicateName,
    MeshConfigError,
    MeshError,
    NetwarrenError,
    UnknownName,
)
from netwarren.mesh.config import ProxyConfig
from netwarren.mesh.identity.authority import Authority
from netwarren.mesh.inpod import redirection
from netwarren.mesh.inpod.agent import NodeAgent
from netwarren.mesh.inpod.zds import WorkloadInfo
from netwarren.mesh.model import GatewayAddress, NamespacedName, NetworkAddress, Policy, Service, Workload
from netwarren.mesh.proxy.ztunnel import Ztunnel
from netwarren.mesh.state.local_config import Config
from netwarren.mesh.state.references import check_service, check_workload
from netwarren.mesh.state.store import State
from netwarren.runtime.program import Command
from netwarren.topology.wellknown import NAME_SERVER_IN_PROCESS

if TYPE_CHECKING:
    from netwarren.cluster.cluster import Cluster
    from netwarren.topology.services import ServiceSpec

READY_SECONDS = 10.0
LET_GO_SECONDS = 10.0
"""How long a proxy may take to let go of a pod that is removed; then that goes without, and says so."""

Changeable = TypeVar("Changeable", Workload, Service)

_GATEWAYS = frozenset({"waypoint", "network_gateway"})


class Binary(NamedTuple):
    """Another ztunnel program, and how long it may take until it is ready."""

    command: Command
    ready_timeout: float


class Mesh:
    """What all node proxies of a cluster have in common. ``authority`` issues their certificates."""

    def __init__(self, cluster: "Cluster") -> None:
        self.authority = Authority()
        self.proxies: dict[str, NodeProxy] = {}
        """By node."""
        self.dedicated: dict[str, NodeProxy] = {}
        """By pod, those of one pod alone."""
        self._networks: dict[str, str] = {}
        self._cluster = cluster
        self._workloads: dict[str, Workload] = {}
        self._services: dict[NamespacedName, Service] = {}
        self._policies: dict[NamespacedName, Policy] = {}
        self._changes: dict[str, Mapping[str, Any]] = {}
        self._service_changes: dict[NamespacedName, Mapping[str, Any]] = {}
        self._carried: set[str] = set()
        for pod in cluster.pods.values():
            self._workloads[pod.name] = self._workload(pod)
        self._read_services()

    # --- for users ---

    @property
    def config(self) -> Config:
        """All that the proxies know, as data."""
        return Config(
            tuple(self._workloads.values()), tuple(self._policies.values()), tuple(self._services.values())
        )

    def workload(self, pod: "str | Pod") -> Workload:
        """What the proxies know of a pod; raises `UnknownName`."""
        name = pod if isinstance(pod, str) else pod.name
        if name not in self._workloads:
            raise UnknownName("workload", name, self._workloads)
        return self._workloads[name]

    def update(self, pod: "str | Pod", **changes: Any) -> Workload:
        """Change fields of a pod's workload (``waypoint``, ``protocol``, ...) in every proxy.

        A ``waypoint`` or ``network_gateway`` may be given as a pod or a service of the cluster. Who changes whom the
        node agent says it is (``name``, ``namespace``, ``service_account``) is taken up anew, and loses its connections.
        Raises `ConfigurationError` for a field that there is not, `MeshConfigError` for one that names nothing.
        """
        with self._cluster._lock:
            before = self.workload(pod)
            changes = self._addressed(changes)
            after = _changed("workload", before, changes)
            self._check(after)
            self._changes[before.name] = {**self._changes.get(before.name, {}), **changes}
            self._workloads[before.name] = after
            self._tell(lambda state: state.add_workload(after))
            if _info(after) != _info(before):
                self._carry_anew(self._cluster.pods[before.name], before.uid, after)
            if after.network != before.network:
                self.follow_services()  # whose addresses are in all networks
            return after

    def service(self, service: "str | ServiceHandle") -> Service:
        """What the proxies know of a service, which may be named as in `Cluster.resolve`; raises `UnknownName`."""
        if isinstance(service, str):
            name, _, namespace = service.partition(".")
            key = _hostname(name, namespace or "default")
        else:
            key = _key(service.spec)
        if key not in self._services:
            raise UnknownName("service", str(key), map(str, self._services))
        return self._services[key]

    def update_service(self, service: "str | ServiceHandle", **changes: Any) -> Service:
        """Change fields of a service (``waypoint``, ``load_balancer``, ``subject_alt_names``, ...) in every proxy.

        A port whose target is 0 is a named one: its number is what a pod says in its workload's ``services``.
        Raises `ConfigurationError` for a field that there is not, `MeshConfigError` for one that names nothing.
        """
        with self._cluster._lock:
            before = self.service(service)
            changes = self._addressed(changes)
            after = _changed("service", before, changes)
            if after.key != before.key:
                raise ConfigurationError(f"a service stays {before.key}; add another one")
            check_service(replace_service(self.config, after), after)
            self._service_changes[before.key] = {**self._service_changes.get(before.key, {}), **changes}
            self.follow_services()
            return after

    def add_policy(self, policy: Policy) -> None:
        """Have an authorization policy hold in every proxy, in place of one of its name."""
        with self._cluster._lock:
            self._policies[policy.key] = policy
            self._tell(lambda state: state.add_policy(policy))

    def remove_policy(self, namespace: str, name: str) -> None:
        """Take a policy back; raises `UnknownName`."""
        with self._cluster._lock:
            key = NamespacedName(namespace, name)
            if self._policies.pop(key, None) is None:
                raise UnknownName("policy", str(key), map(str, self._policies))
            self._tell(lambda state: state.remove_policy(key))

    def carried(self, pod: "str | Pod") -> bool:
        """Whether a proxy carries the pod's traffic, of its node or its own."""
        return (pod if isinstance(pod, str) else pod.name) in self._carried

    # --- for the cluster, under its lock ---

    def deploy(self, node: str, config: ProxyConfig, binary: Binary | None = None) -> NodeProxy:
        """A proxy for the pods of a node, in a pod of its own."""
        if node in self.proxies:
            raise DuplicateName("node proxy of node", node, f"in pod {self.proxies[node].pod.name!r}")
        with ExitStack() as undo:
            pod = self._cluster.add_pod(f"ztunnel-{node}", node)
            undo.callback(pod.remove)
            agent = NodeAgent()
            undo.callback(agent.close)
            proxy = self._started(pod, config, binary, agent.path)
            undo.callback(proxy.close)
            try:
                agent.wait_synced(READY_SECONDS)
            except MeshError as error:
                if isinstance(proxy, Ztunnel):
                    raise
                raise proxy.failed(f"says that it is ready, but {error}") from error
            self.proxies[node] = NodeProxy(pod, agent, proxy)
            undo.callback(self.proxies.pop, node, None)
            self._networks[node] = config.network
            self.update(pod, protocol="HBONE", network=config.network)
            undo.pop_all()
        return self.proxies[node]

    def deploy_dedicated(self, pod: "Pod", config: ProxyConfig, binary: Binary | None = None) -> NodeProxy:
        """A proxy for one pod, in that pod. One that has ended makes room for another.

        For a pod and not for a node, since it shares a network namespace with its application (ztunnel's
        ``PROXY_WORKLOAD_INFO`` names that one workload), and a pod is that namespace and that workload here.
        """
        if any(each.pod is pod for each in self.proxies.values()):
            raise DuplicateName("node proxy in pod", pod.name, f"that of {pod.spec.node!r}")
        before = self.dedicated.get(pod.name)
        if before is not None and before.running:
            raise DuplicateName("dedicated proxy of pod", pod.name, "running")
        if before is None and pod.name in self._carried:
            raise DuplicateName(
                "proxy of pod",
                pod.name,
                f"that of its node {pod.spec.node!r}; add the pod with captured=False to give it its own",
            )
        with ExitStack() as undo:
            proxy = self._started(pod, config, binary)
            undo.callback(proxy.close)
            deployed = NodeProxy(pod, None, proxy)
            if before is None:
                undo.callback(redirection.remove, pod.namespace_fd, pod.label)
            deployed._redirect(pod)
            self.dedicated[pod.name] = deployed
            undo.callback(self.dedicated.pop, pod.name)
            network = {"network": config.network} if config.network else {}
            self.update(pod, protocol="HBONE", **network)
            undo.pop_all()
        if before is not None:
            before._end()
        self._carried.add(pod.name)
        return deployed

    def _started(
        self, pod: "Pod", config: ProxyConfig, binary: Binary | None, agent: str = ""
    ) -> Ztunnel | ZtunnelProgram:
        """A proxy that lives in ``pod``, started: our own, or another program."""
        families, workload = self._cluster.families, self.workload(pod)
        config = replace(config, node=pod.spec.node, ipv6=config.ipv6 and 6 in families)
        if binary is not None:
            program = ZtunnelProgram(
                binary.command,
                pod,
                config,
                _info(workload),
                agent=agent,
                authority=self.authority,
                mesh=self.config,
            )
            program.start(binary.ready_timeout)
            return program
        proxy = Ztunnel(
            config,
            agent=agent,
            netns=pod.namespace_fd,
            fetch=self.authority.fetcher(lifetime=config.certificate_lifetime),
            mesh=self.config,
            name_servers=tuple(NAME_SERVER_IN_PROCESS[family] for family in families),
            own=(workload.uid, _info(workload)),
        )
        try:
            proxy.start()
        except BaseException:
            proxy.close()
            raise
        return proxy

    def pod_added(self, pod: "Pod", captured: bool, changes: Mapping[str, Any]) -> None:
        """A pod has been wired: tell every proxy, and have its node's carry it. Raises; then it is as it was."""
        proxy = self.proxies.get(pod.spec.node)
        carried = captured and proxy is not None
        if carried and proxy is not None and not proxy.running:
            raise MeshError(
                f"the node proxy of {pod.spec.node!r}, which would carry {pod.label}, has ended; remove its pod "
                f"{proxy.pod.name!r} and deploy it anew, or add the pod with captured=False"
            )
        changes = {**({"protocol": "HBONE"} if carried else {}), **self._addressed(changes)}
        workload = _changed("workload", self._workload(pod), changes)
        self._check(workload)
        self._workloads[pod.name] = workload
        self._changes[pod.name] = changes
        try:
            self._tell(lambda state: state.add_workload(workload))
            self.follow_services()
            if carried and proxy is not None:
                assert proxy.agent is not None  # it is one of a node
                acknowledged = proxy.agent.begin_addition(workload.uid, _info(workload), pod.namespace_fd)
                self._carried.add(pod.name)
                proxy._redirect(pod)  # while the proxy begins: nobody is in the pod yet
                acknowledged()
        except BaseException:
            with suppress(MeshError):  # why it could not be added is what is to be told
                self.pod_removed(pod)()
            raise

    def pod_removed(self, pod: "Pod") -> Callable[[], None]:
        """A pod goes, or has gone. What is given back waits, without the lock, until no proxy carries it.

        It raises what a proxy does not take of that, when all else is done.
        """
        workload = self._workloads.pop(pod.name, None)
        self._changes.pop(pod.name, None)
        if workload is None:
            return _nothing
        ends = self._leave(pod, workload)
        try:
            self._tell(lambda state: state.remove_workload(workload.uid))
        except NetwarrenError as error:
            return partial(_end_and_raise, ends, error)
        return ends

    def _leave(self, pod: "Pod", workload: Workload) -> Callable[[], None]:
        """No proxy is that of the pod any more; what ends the one in it, or waits for that of its node."""
        carried = pod.name in self._carried
        self._carried.discard(pod.name)
        own = self.dedicated.pop(pod.name, None)
        if own is not None:
            return own._end
        proxy = self.proxies.get(pod.spec.node)
        if proxy is None:
            return _nothing
        if proxy.pod is pod:
            del self.proxies[pod.spec.node]
            return proxy._end
        if carried and proxy.running and proxy.agent is not None:
            return proxy.agent.begin_deletion(workload.uid, timeout=LET_GO_SECONDS)
        return _nothing

    def follow_services(self) -> None:
        """Services, or who is behind them, may have changed."""
        services, workloads = dict(self._services), dict(self._workloads)
        self._read_services()
        gone = [key for key in services if key not in self._services]
        new = [each for key, each in self._services.items() if services.get(key) != each]
        moved = [
            each
            for name, each in self._workloads.items()
            if name in workloads and workloads[name] is not each
        ]
        if not (gone or new or moved):
            return

        def change(state: State) -> None:
            for key in gone:
                state.remove_service(key)
            for service in new:
                state.add_service(service)
            for workload in moved:
                state.add_workload(workload)

        self._tell(change)

    def close(self) -> None:
        """The cluster ends."""
        for proxy in self._all():
            proxy._end()
        self.proxies.clear()
        self.dedicated.clear()

    # --- inside ---

    def _all(self) -> list[NodeProxy]:
        return [*self.proxies.values(), *self.dedicated.values()]

    def _tell(self, change: Callable[[State], None]) -> None:
        failed: list[MeshError] = []
        for proxy in self._all():
            try:
                proxy._tell(change, lambda: self.config)
            except MeshError as error:
                failed.append(error)
        if failed:
            raise failed[0]  # the others have been told

    def _carry_anew(self, pod: Pod, uid: str, workload: Workload) -> None:
        """Have the pod's node agent say who the pod is now: it says so when a pod comes, and then no more."""
        proxy = self.proxies.get(pod.spec.node)
        if pod.name not in self._carried or pod.name in self.dedicated:
            return
        if proxy is None or proxy.agent is None or not proxy.running:
            return
        self._carried.discard(pod.name)
        proxy.agent.delete(uid)
        proxy.agent.add(workload.uid, _info(workload), pod.namespace_fd)
        self._carried.add(pod.name)

    def _check(self, workload: Workload) -> None:
        # The workload is among those that there are: it may be its own waypoint.
        if (
            workload.waypoint
            or workload.network_gateway
            or workload.services
            or workload.authorization_policies
        ):
            check_workload(replace_in(self.config, workload), workload)

    def _addressed(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """``changes`` with a pod or a service that is a waypoint or gateway by its address or hostname."""
        return {name: self._gateway(value) if name in _GATEWAYS else value for name, value in changes.items()}

    def _gateway(self, value: object) -> object:
        if isinstance(value, Pod):
            return GatewayAddress(NetworkAddress(self.workload(value).network, ip_address(value.ip)))
        if isinstance(value, ServiceHandle):
            return GatewayAddress(_key(value.spec))
        return value

    def _workload(self, pod: "Pod") -> Workload:
        return Workload(
            uid=f"cluster1//v1/Pod/{pod.namespace}/{pod.name}",
            name=pod.name,
            namespace=pod.namespace,
            addresses=tuple(ip_address(each) for each in pod.ips),
            service_account=pod.name,
            node=pod.spec.node,
            workload_name=pod.name,
            canonical_name=pod.name,
            network=self._networks.get(pod.spec.node, ""),
        )

    def _read_services(self) -> None:
        handles = self._cluster.services.values()
        pods = self._cluster.pods
        networks = sorted({"", *(each.network for each in self._workloads.values())})
        known = {_key(handle.spec): _service(handle.spec, networks) for handle in handles}
        self._service_changes = {key: each for key, each in self._service_changes.items() if key in known}
        self._services = {
            key: replace(each, **self._service_changes.get(key, {})) for key, each in known.items()
        }
        behind: dict[str, dict[NamespacedName, Mapping[int, int]]] = {}
        for handle in handles:
            key = _key(handle.spec)
            for endpoint in handle.endpoints:
                ports = {port: target for port, target in self._services[key].ports.items() if target}
                behind.setdefault(endpoint.pod, {})[key] = ports
        for name, workload in self._workloads.items():
            changes = self._changes.get(name, {})
            healthy = name not in pods or pods[name].ready
            services = changes.get("services", behind.get(name, {}))
            status = changes.get("status", "Healthy" if healthy else "Unhealthy")
            if workload.services != services or workload.status != status:
                self._workloads[name] = replace(workload, services=services, status=status)


def _nothing() -> None:
    pass


def _end_and_raise(end: Callable[[], None], error: NetwarrenError) -> None:
    try:
        end()
    finally:
        raise error


def _info(workload: Workload) -> WorkloadInfo:
    return WorkloadInfo(workload.name, workload.namespace, workload.service_account)


def replace_in(config: Config, workload: Workload) -> Config:
    """``config`` with ``workload`` in place of the one of its uid."""
    others = tuple(each for each in config.workloads if each.uid != workload.uid)
    return Config((*others, workload), config.policies, config.services)


def replace_service(config: Config, service: Service) -> Config:
    """``config`` with ``service`` in place of the one of its key."""
    others = tuple(each for each in config.services if each.key != service.key)
    return Config(config.workloads, config.policies, (*others, service))


def _changed(kind: str, thing: Changeable, changes: Mapping[str, Any]) -> Changeable:
    fields = set(thing.__dataclass_fields__)
    unknown = set(changes) - fields
    if unknown:
        raise ConfigurationError(
            f"a {kind} has no field {', '.join(sorted(unknown))}; it has {', '.join(sorted(fields))}"
        )
    try:
        return replace(thing, **changes)
    except NetwarrenError:
        raise
    except (TypeError, ValueError) as error:
        raise MeshConfigError(f"{kind} {thing.name!r}: {error}") from None


def _key(spec: "ServiceSpec") -> NamespacedName:
    return _hostname(spec.name, spec.namespace)


def _hostname(name: str, namespace: str) -> NamespacedName:
    return NamespacedName(namespace, f"{name}.{namespace}.svc.cluster.local")


def _service(spec: "ServiceSpec", networks: Iterable[str]) -> Service:
    key = _key(spec)
    return Service(
        name=spec.name,
        namespace=spec.namespace,
        hostname=key.name,
        vips=tuple(NetworkAddress(network, each) for network in networks for each in spec.cluster_ips),
        ports={port.port: port.target for port in spec.ports if port.protocol == "tcp"},
        canonical=True,
    )
