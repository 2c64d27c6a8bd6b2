"""Who a machine is to the programs on it: its host name, and the files in /etc that say so, as text.

Rules: pure; what the host's own files have to add is an argument. The files are shaped as the kubelet and the
container runtime write them (Kubernetes, "DNS for Services and Pods").
Does not belong here: laying the files over the host's (see `netwarren.runtime.view`), answering names.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from netwarren.topology.addresses import Address, Interface, family_of
from netwarren.topology.specs import NodeSpec, PodSpec
from netwarren.topology.wellknown import CLUSTER_DOMAIN, NAME_SERVER

# Each file of a host may name services of its own (systemd, sss); look-ups of hosts must ask nobody but us.
_HOSTS_LINE = re.compile(r"^[ \t]*hosts[ \t]*:.*$", re.MULTILINE)
_HOSTS = "hosts: files dns"
_NSSWITCH = f"passwd: files\ngroup: files\nshadow: files\n{_HOSTS}\nservices: files\nprotocols: files\n"

# What the kubelet writes above a pod's own line; the names are those of Debian's /etc/hosts.
_LOCAL = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


@dataclass(frozen=True, slots=True)
class Identity:
    """What ``hostname`` prints, and the text of each file by its path."""

    hostname: str
    files: Mapping[str, str] = field(hash=False)


def pod_identity(spec: PodSpec, nsswitch: str | None) -> Identity:
    """A pod, in its Kubernetes namespace; ``nsswitch`` is the host's /etc/nsswitch.conf, None without one."""
    services = f"svc.{CLUSTER_DOMAIN}"
    own = f"{spec.namespace}.{services}"
    addresses = [interface.ip for interface in spec.interfaces]
    return _identity(spec.name, addresses, own, (own, services, CLUSTER_DOMAIN), nsswitch)


def node_identity(spec: NodeSpec, nsswitch: str | None) -> Identity:
    """A node; ``nsswitch`` as in `pod_identity`."""
    addresses = [family.address for family in spec.families]
    return _identity(spec.name, addresses, CLUSTER_DOMAIN, (CLUSTER_DOMAIN,), nsswitch)


def root_identity(name: str, bridge: Iterable[Interface], nsswitch: str | None) -> Identity:
    """The root, known by the addresses of its bridge; ``nsswitch`` as in `pod_identity`."""
    addresses = [interface.ip for interface in bridge]
    return _identity(name, addresses, CLUSTER_DOMAIN, (CLUSTER_DOMAIN,), nsswitch)


def resolv_conf(addresses: Iterable[Address], search: Iterable[str]) -> str:
    """/etc/resolv.conf with a name server for each family of ``addresses``, in their order; resolv.conf(5)."""
    families = dict.fromkeys(map(family_of, addresses))
    servers = "".join(f"nameserver {NAME_SERVER[family]}\n" for family in families)
    return f"search {' '.join(search)}\n{servers}options ndots:5\n"


def hosts(name: str, addresses: Iterable[Address], domain: str) -> str:
    """/etc/hosts: localhost in both families, then ``name`` with and without its domain; hosts(5)."""
    own = "".join(f"{address}\t{name}.{domain} {name}\n" for address in addresses)
    return f"# Written by netwarren, as the kubelet does.\n{_LOCAL}{own}"


def nsswitch_conf(host: str | None) -> str:
    """The host's /etc/nsswitch.conf, in which host names are looked for in files and by DNS; nsswitch.conf(5)."""
    if host is None:
        return _NSSWITCH
    text, replaced = _HOSTS_LINE.subn(_HOSTS, host)
    return text if replaced else f"{host.rstrip()}\n{_HOSTS}\n".lstrip()


def _identity(
    name: str, addresses: Sequence[Address], domain: str, search: Iterable[str], nsswitch: str | None
) -> Identity:
    return Identity(
        name,
        {
            "/etc/hostname": f"{name}\n",
            "/etc/hosts": hosts(name, addresses, domain),
            "/etc/nsswitch.conf": nsswitch_conf(nsswitch),
            "/etc/resolv.conf": resolv_conf(addresses, search),
        },
    )
