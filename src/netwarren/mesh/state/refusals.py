"""Why the proxy does not carry a connection: one class a reason, with what logs, metrics and the peer see of it.

Rules: the texts are those of Istio's ztunnel; ``flag`` is the response flag, ``early`` whether it is only logged
(an early deny) and not counted, ``status`` what an HBONE client is answered, None where there is none.
Does not belong here: failures of sockets, TLS and HTTP/2 (see `mesh.hbone`, `mesh.identity`).
"""

from typing import ClassVar

from netwarren.errors import MeshError
from netwarren.mesh.model import SocketAddress, Workload
from netwarren.mesh.state.rbac import Verdict
from netwarren.topology.addresses import Address


class Refusal(MeshError):
    """A connection that the proxy does not carry."""

    flag: ClassVar[str] = "CONNECT"
    early: ClassVar[bool] = True
    status: ClassVar[int | None] = None


class SelfCall(Refusal):
    """A call to the proxy's own port by way of the proxy."""

    status = 503

    def __init__(self) -> None:
        super().__init__("attempted recursive call to ourselves")


class UnknownSourceWorkload(Refusal):
    """The proxy does not know the pod that it works for."""

    status = 503

    def __init__(self, who: str) -> None:
        super().__init__(f"failed to fetch information about local workload: {who}")


# --- outbound -------------------------------------------------------------------------------------


class UnknownWaypoint(Refusal):
    """A waypoint that names nothing, or nothing that can be connected to."""

    def __init__(self, waypoint: object) -> None:
        super().__init__(f"unknown waypoint: waypoint {waypoint} not found")


class UnknownNetworkGateway(Refusal):
    """A network gateway that names nothing, or nothing that can be connected to."""

    def __init__(self, gateway: object) -> None:
        super().__init__(f"unknown network gateway: network gateway {gateway} not found")


class NoHealthyUpstream(Refusal):
    """A service without a usable endpoint, or without the port asked for."""

    def __init__(self, target: SocketAddress) -> None:
        super().__init__(f"no healthy upstream: {target}")


class NoValidDestination(Refusal):
    """A workload without an address that can be used."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(
            f"no valid routing destination for workload: {workload.namespace}/{workload.name} ({workload.uid})"
        )


class NoResolvedAddresses(Refusal):
    """A workload known by hostname, which no name server could resolve."""

    def __init__(self, uid: str) -> None:
        super().__init__(f"no ip addresses were resolved for workload: {uid}")


class EmptyResolvedAddresses(Refusal):
    """A workload known by hostname, which has no address records."""

    def __init__(self, uid: str) -> None:
        super().__init__(
            f"ip addresses were resolved for workload {uid}, but valid dns response had no A/AAAA records"
        )


# --- inbound --------------------------------------------------------------------------------------


class NonConnectMethod(Refusal):
    """A request on the HBONE port that is no CONNECT."""

    status = 400

    def __init__(self, method: str) -> None:
        super().__init__(f"expected method CONNECT, got {method}")


class ConnectAddress(Refusal):
    """A CONNECT to something that is neither an address nor a hostname with a port."""

    status = 400

    def __init__(self, authority: str) -> None:
        super().__init__(f"invalid CONNECT address {authority}")


class IpMismatch(Refusal):
    """A CONNECT to an address that the workload neither has nor is the waypoint of."""

    status = 400

    def __init__(self, connection: Address, hbone: Address) -> None:
        super().__init__(f"ip mismatch: {connection} != {hbone}")


class NoHostname(Refusal):
    """A CONNECT to a hostname that no service has."""

    status = 503

    def __init__(self, hostname: str) -> None:
        super().__init__(f"no service for target address: {hostname}")


class NoPortForServices(Refusal):
    """A CONNECT to a service's hostname and a port that the service does not have."""

    status = 503

    def __init__(self, hostname: str, port: int) -> None:
        super().__init__(f"no port for service: {hostname}:{port}")


class NoIpForService(Refusal):
    """A CONNECT to a service without an address, on its way to an application that must be told one."""

    status = 503

    def __init__(self, hostname: str) -> None:
        super().__init__(f"no ip addresses for service: {hostname}")


class PolicyRejection(Refusal):
    """A connection that the policies do not allow; ``verdict`` says which one denied it, if one did."""

    flag = "DENY"
    early = False
    status = 401

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        denied = verdict.policy
        why = f"explicitly denied by: {denied}" if denied else "allow policies exist, but none allowed"
        super().__init__(f"connection closed due to policy rejection: {why}")
