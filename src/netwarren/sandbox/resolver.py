"""What this process reads before it asks for a name, /etc/resolv.conf, and how a cluster gets the question.

Rules: a root has the addresses of the host's name servers, so that in a pod they are the cluster's; where
none of them can be had (127.0.0.53), ours are laid behind the host's, in our own mount namespace, when the
first cluster is made and not sooner. In the host's network the host's still answer; its file is not written.
Does not belong here: what answers (see `netwarren.names`), files that programs in pods get.
"""

import os
import threading
from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from netwarren.errors import KernelError
from netwarren.kernel import mount

RESOLV_CONF = "/etc/resolv.conf"

# Below /run. Who asks a daemon of the host by one of these gets the host's answer, wherever he stands;
# without it, glibc goes on to the `dns` of nsswitch.conf(5), which asks by the network.
DAEMON_SOCKETS = ("nscd/socket", "systemd/resolve/io.systemd.Resolve")

_MARK = "# From here on by netwarren, for where those above are out of reach:\n"
_MOST_SERVERS = 3  # that glibc asks (MAXNS)
_IF_NONE_IS_NAMED = "127.0.0.1"  # resolv.conf(5)

_lock = threading.Lock()
_servers: tuple[IPv4Address | IPv6Address, ...] | None = None
_laid_over = False


def host_servers() -> tuple[IPv4Address | IPv6Address, ...]:
    """The host's name servers, as they were at first, but for those on this machine itself."""
    global _servers
    if _servers is None:
        with _lock:
            if _servers is None:
                _hide_daemons()
                _servers = routed(_read() or "")
    return _servers


def prepare(ours: Sequence[str], families: Collection[int]) -> None:
    """Have glibc in this process ask ``ours``, too, where the host's are of none of a cluster's families.

    Nothing happens where there is no file to lay ours over, or nowhere to keep it.
    """
    global _laid_over
    if _laid_over or any(server.version in families for server in host_servers()):
        return
    with _lock:
        if not _laid_over:
            text = _read()
            if text is not None and _MARK not in text:  # else another process of this sandbox was first
                _cover(os.path.realpath(RESOLV_CONF), with_ours(text, ours))
            _laid_over = True


def routed(text: str) -> tuple[IPv4Address | IPv6Address, ...]:
    """The name servers of a resolv.conf that one reaches by routes: not this machine's own, not a link's."""
    found = []
    for word in _named(text.partition(_MARK)[0])[:_MOST_SERVERS]:
        try:
            address = ip_address(word)
        except ValueError:
            continue
        of_a_link = address.version == 6 and address.is_link_local
        if not (address.is_loopback or address.is_unspecified or address.is_multicast or of_a_link):
            found.append(address)
    return tuple(found)


def with_ours(text: str, ours: Sequence[str]) -> str:
    """A resolv.conf with the first of its name servers, ``ours`` behind it, and all else as it was.

    ``options rotate`` goes: by that, ours would be asked first at times.
    """
    kept: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["options"]:
            kept.append(" ".join(word for word in words if word != "rotate"))
        elif words[:1] != ["nameserver"]:
            kept.append(line)
    kept.append(f"nameserver {next(iter(_named(text)), _IF_NONE_IS_NAMED)}")
    named = [f"nameserver {server}" for server in ours]
    return "".join(f"{line}\n" for line in kept) + _MARK + "".join(f"{line}\n" for line in named)


def _named(text: str) -> list[str]:
    lines = [line.split() for line in text.splitlines()]
    return [words[1] for words in lines if words[:1] == ["nameserver"] and len(words) > 1]


def _read() -> str | None:
    try:
        with open(RESOLV_CONF, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return None


def _hide_daemons() -> None:
    run = os.path.realpath("/var/run")
    for name in DAEMON_SOCKETS:
        if os.path.exists(f"{run}/{name}"):
            _cover(f"{run}/{name}", "")  # which no socket is, so that who connects is refused


def _cover(target: str, text: str) -> None:
    """Lay a file with ``text`` over another; it is whole when it first is seen.

    It keeps its name in our own /run (see `names`): nothing can be laid over a file that has none.
    """
    place = f"{os.path.realpath('/var/run')}/netwarren"
    source = f"{place}/{os.path.basename(target)}-{os.getpid()}"
    try:
        os.makedirs(place, exist_ok=True)
        with open(source, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        mount.bind(source, target)
    except (OSError, KernelError):
        return  # said in docs/limits.md; addresses work all the same


def _forget() -> None:
    global _lock
    _lock = threading.Lock()  # the child has the same mounts, and may have been forked in between


os.register_at_fork(after_in_child=_forget)
