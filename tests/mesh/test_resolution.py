"""What the node proxy as a program takes from resolv.conf(5)."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from netwarren.mesh.program import Resolution, resolution


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", Resolution()),
        (
            "nameserver 10.0.0.1\nnameserver fe80::1%eth0\n",
            Resolution((ip_address("10.0.0.1"), ip_address("fe80::1"))),
        ),
        ("search a.svc.cluster.local. b\noptions ndots:5\n", Resolution((), ("a.svc.cluster.local", "b"))),
        ("domain first\nsearch last of all\n# search none\n", Resolution((), ("last", "of", "all"))),
        ("nameserver 10.0.0.1\nsearch .\n", Resolution((ip_address("10.0.0.1"),))),
    ],
)
def test_name_servers_and_the_last_search_list_are_read(text: str, found: Resolution, tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(text)
    assert resolution(str(path)) == found


def test_without_a_file_there_is_nothing(tmp_path: Path) -> None:
    assert resolution(str(tmp_path / "none")) == Resolution()
