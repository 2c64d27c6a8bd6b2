"""The command line: ``netwarren demo | doctor | run | shell``.

Rules: a thin door: arguments in, one function called, an exit status out; netwarren's errors are one
line on stderr.
Does not belong here: anything a test could want to call.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from netwarren.errors import NetwarrenError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    # What follows `--` is another program's: argparse would take the first of it for our own argument.
    cut = words.index("--") if "--" in words else len(words)
    arguments = _parser().parse_args(words[:cut])
    if cut < len(words):
        arguments.words = [*getattr(arguments, "words", []), *words[cut + 1 :]]
    try:
        command: Callable[[argparse.Namespace], int] = arguments.command
        return int(command(arguments))
    except NetwarrenError as error:
        print(f"netwarren: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    from netwarren import __version__

    parser = argparse.ArgumentParser(
        prog="netwarren",
        description="A Kubernetes-shaped network for a test, out of Linux namespaces, without root.",
    )
    parser.add_argument("--version", action="version", version=f"netwarren {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    demo = commands.add_parser("demo", help="build two nodes and four pods, send an echo between them")
    demo.set_defaults(command=_demo)

    doctor = commands.add_parser("doctor", help="try everything netwarren needs from this machine")
    doctor.add_argument("--json", action="store_true", help="print JSON instead of a table")
    doctor.set_defaults(command=_doctor)

    run = commands.add_parser(
        "run",
        help="run a program in a fresh sandbox",
        usage="netwarren run [--map-root] [--subids] [--host-network] -- COMMAND [ARGUMENT ...]",
    )
    _add_sandbox_options(run)
    run.add_argument(
        "--host-network",
        action="store_true",
        help="keep the host's network instead of an empty one of its own",
    )
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    run.set_defaults(command=_run)

    shell = commands.add_parser(
        "shell",
        help="step into a running test's namespace",
        usage="netwarren shell PID [NAME] [-- COMMAND [ARGUMENT ...]]",
    )
    shell.add_argument("pid", type=int, metavar="PID", help="the process, as the test prints it")
    shell.add_argument("name", nargs="?", metavar="NAME", help="a pod or node; the cluster's root without")
    shell.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    shell.set_defaults(command=_shell)
    return parser


def _add_sandbox_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--map-root", action="store_true", help="appear as uid 0 inside")
    parser.add_argument("--subids", action="store_true", help="map the ranges of /etc/subuid too (newuidmap)")


def _demo(_arguments: argparse.Namespace) -> int:
    from netwarren import demo

    return demo.main()


def _doctor(arguments: argparse.Namespace) -> int:
    from netwarren import doctor

    return doctor.main(as_json=arguments.json)


def _run(arguments: argparse.Namespace) -> int:
    from netwarren.kernel import link, netns
    from netwarren.kernel.netlink import Netlink
    from netwarren.sandbox import Sandbox, shell

    words = arguments.words
    if not words:
        print("netwarren: run needs a command: netwarren run -- COMMAND", file=sys.stderr)
        return 2
    # Inside a sandbox already, another one is made all the same: it is asked to be fresh.
    sandbox = Sandbox(map_root=arguments.map_root, subids=arguments.subids)
    sandbox.enter_here()
    if not arguments.host_network:
        netns.create("the sandbox").close()
        with Netlink("the sandbox") as netlink:
            netlink.commit([link.set_link(1, up=True)])
    shell.execute(words)
    return 1


def _shell(arguments: argparse.Namespace) -> int:
    from netwarren.sandbox import shell

    shell.step_in(arguments.pid, arguments.name, arguments.words)
    return 1
