"""Capabilities that survive execve, so that an ordinary uid keeps its powers in the sandbox.

Rules: sets are bit masks as in capabilities(7); the calling thread only.
Does not belong here: who may have capabilities (see `userns`).
"""

from netwarren.kernel import syscall

CAP_SETGID = 6
CAP_SETUID = 7


def has(*capabilities: int) -> bool:
    """Whether the calling thread has every one of ``capabilities`` in its effective set."""
    effective = syscall.capget()[0]
    return all(effective >> capability & 1 for capability in capabilities)


def make_ambient() -> None:
    """Raise every permitted capability into the ambient set (``capsh --addamb``).

    Without it a program started by a uid other than 0 would lose them all at execve.
    """
    _effective, permitted, _inheritable = syscall.capget()
    syscall.capset(permitted, permitted, permitted)
    for capability in range(permitted.bit_length()):
        if permitted >> capability & 1:
            syscall.prctl(
                f"make capability {capability} ambient",
                syscall.PR_CAP_AMBIENT,
                syscall.PR_CAP_AMBIENT_RAISE,
                capability,
            )
