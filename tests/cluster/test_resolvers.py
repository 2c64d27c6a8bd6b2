"""Other people's resolvers, in programs as they are: all find the same names, and say at once what there is not."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from netwarren import Cluster

NAMES = ("server", "server.default", "web", "web.default.svc.cluster.local", "node-a")

JAVA = """
import java.net.*;
public class Resolve {
    public static void main(String[] names) {
        for (String name : names)
            try { System.out.println(name + " " + InetAddress.getByName(name).getHostAddress()); }
            catch (UnknownHostException error) { System.out.println(name + " -"); }
    }
}
"""

NODE = """
const dns = require("dns");
for (const name of process.argv.slice(1))
    dns.lookup(name, 4, (error, address) => console.log(name, error ? "-" : address));
"""

C = """
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
int main(int count, char **names) {
    for (int i = 1; i < count; i++) {
        struct addrinfo *found, hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM };
        if (getaddrinfo(names[i], "80", &hints, &found)) { printf("%s -\\n", names[i]); continue; }
        printf("%s %s\\n", names[i], inet_ntoa(((struct sockaddr_in *)found->ai_addr)->sin_addr));
    }
}
"""


def java(folder: Path) -> list[str]:
    (folder / "Resolve.java").write_text(JAVA)
    return ["java", "-XX:TieredStopAtLevel=1", str(folder / "Resolve.java")]


def node(_folder: Path) -> list[str]:
    return ["node", "-e", NODE]


def musl(folder: Path) -> list[str]:
    (folder / "resolve.c").write_text(C)
    command = ["musl-gcc", "-static", "-o", str(folder / "resolve"), str(folder / "resolve.c")]
    subprocess.run(command, check=True)
    return [str(folder / "resolve")]


def glibc(folder: Path) -> list[str]:
    script = 'for name; do set -- $(getent ahostsv4 "$name"); echo "$name ${1:--}"; done'
    (folder / "resolve.sh").write_text(script)
    return ["sh", str(folder / "resolve.sh")]


def if_there(make: Callable[[Path], list[str]], program: str) -> object:
    skipped = pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")
    return pytest.param(make, marks=skipped, id=make.__name__)


@pytest.mark.parametrize(
    "resolver",
    [if_there(java, "javac"), if_there(node, "node"), if_there(musl, "musl-gcc"), if_there(glibc, "getent")],
)
def test_the_resolver_finds_pods_services_and_nodes(
    cluster: Cluster, resolver: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    server, client = cluster.add_pod("server"), cluster.add_pod("client", node="node-b")
    service = cluster.add_service("web", pods=[server], ports=80)
    told = client.check_output([*resolver(tmp_path), *NAMES, "nobody", "www.example.com"], timeout=60)
    assert dict(line.split() for line in told.splitlines()) == {
        "server": server.ip,
        "server.default": server.ip,
        "web": service.ip,
        "web.default.svc.cluster.local": service.ip,
        "node-a": server.node.ip,
        "nobody": "-",
        "www.example.com": "-",
    }
