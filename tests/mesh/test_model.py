"""What the node proxy knows, as data."""

from ipaddress import ip_address

import pytest

from netwarren.errors import MeshError
from netwarren.mesh.model import Identity, NamespacedName, NetworkAddress, SocketAddress


def test_an_identity_is_read_back_from_its_uri() -> None:
    identity = Identity("cluster.local", "default", "server")
    assert str(identity) == "spiffe://cluster.local/ns/default/sa/server"
    assert Identity.parse(str(identity)) == identity


@pytest.mark.parametrize("identity", [Identity("", "default", "server"), Identity("", "", "")])
def test_what_a_file_says_nothing_of_is_an_empty_segment_of_an_identity(identity: Identity) -> None:
    assert Identity.parse(str(identity)) == identity


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://cluster.local",
        "spiffe://cluster.local/ns/default/sa/server/",
        "spiffe://cluster.local/ns/default/sa/server/more",
        "spiffe://cluster.local/ns/foobar",
        "spiffe://td/ns/ns/sa/sa/ns",
        "https://cluster.local/ns/default/sa/server",
        "spiffe://cluster.local/sa/default/ns/server",
    ],
)
def test_what_has_other_segments_is_no_identity(uri: str) -> None:
    with pytest.raises(MeshError, match="spiffe://"):
        Identity.parse(uri)


def test_addresses_are_spelled_as_authorities_and_keys_are() -> None:
    assert str(SocketAddress(ip_address("10.0.2.3"), 80)) == "10.0.2.3:80"
    assert str(SocketAddress(ip_address("fd00::3"), 80)) == "[fd00::3]:80"
    assert str(NetworkAddress("", ip_address("10.0.2.3"))) == "/10.0.2.3"
    assert str(NamespacedName("default", "web")) == "default/web"
