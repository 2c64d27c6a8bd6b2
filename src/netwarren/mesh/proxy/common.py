"""What the proxies of all pods of one node share: configuration, state, certificates, metrics, log.

Rules: of the proxy's loop and thread; state changes are announced, and who waits for one does not poll.
Does not belong here: anything of one pod (see `pod`).
"""

import asyncio
from dataclasses import dataclass, field
from random import Random

from netwarren.mesh.config import ProxyConfig
from netwarren.mesh.identity.crl import Revocations
from netwarren.mesh.identity.secrets import SecretManager
from netwarren.mesh.identity.watch import RevocationFile
from netwarren.mesh.model import Identity, Service, Workload
from netwarren.mesh.state.headers import Baggage
from netwarren.mesh.state.rbac import Verdict
from netwarren.mesh.state.store import State
from netwarren.mesh.telemetry.labels import Peer
from netwarren.mesh.telemetry.log import Log
from netwarren.mesh.telemetry.metrics import Metrics
from netwarren.topology.addresses import Address


@dataclass(eq=False)
class Common:
    """One node proxy's own things. ``name_servers`` are whom the DNS proxy asks what it does not know."""

    config: ProxyConfig
    state: State
    secrets: SecretManager
    metrics: Metrics
    log: Log
    revocation_file: RevocationFile | None = None
    name_servers: tuple[Address, ...] = ()
    rng: Random = field(default_factory=Random)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def revocations(self) -> Revocations | None:
        """The revocation lists as they are now; None where nothing is revoked."""
        return None if self.revocation_file is None else self.revocation_file.revocations

    def announce(self) -> None:
        """The state has changed: wake who waits for that."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def warn_of_unknown(self, verdict: Verdict) -> None:
        """Tell the log of policies that were to be asked about a connection and that nobody knows."""
        for key in verdict.unknown:
            self.log.write("warn", "state", f"skipping unknown policy {key}")

    async def changed(self) -> None:
        """Wait for the next change of the state."""
        await self._changed.wait()


def as_told(baggage: Baggage, identity: Identity | None) -> Peer:
    """The other end of a connection, known by what it says of itself and by the identity that it has proved."""
    return Peer(
        workload=baggage.workload,
        canonical_service=baggage.service,
        canonical_revision=baggage.version,
        namespace=baggage.namespace or (identity.namespace if identity is not None else ""),
        cluster=baggage.cluster,
        region=baggage.region,
        zone=baggage.zone,
        identity=identity,
    )


class Directory:
    """The mesh's services as the DNS proxy asks for them (`dns.decision.ServiceDirectory`)."""

    def __init__(self, state: State) -> None:
        self._state = state

    def services(self, hostname: str) -> list[Service]:
        return self._state.services_called(hostname)

    def endpoints(self, service: Service) -> list[Workload]:
        return [endpoint.workload for endpoint in self._state.endpoints(service)]
