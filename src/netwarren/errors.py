"""Every error netwarren raises: one tree, data on the exception, the sentence built in the class.

Rules: an error names the thing and, where there is one, the remedy; kernel errors are made in
`netwarren.kernel.netlink` and `netwarren.kernel.syscall` only.
Does not belong here: deciding when something is wrong.
"""

import errno as _errno
import os
import shlex
from collections.abc import Iterable, Sequence


def errno_name(number: int) -> str:
    """The symbolic name of an errno: ``errno_name(17) == "EEXIST"``."""
    if number == _errno.EOPNOTSUPP:
        return "EOPNOTSUPP"  # the same number as ENOTSUP, which nobody looks for in a kernel's answer
    return _errno.errorcode.get(number, str(number))


def _end_of(text: str, most: int = 100) -> str:
    lines = text.rstrip().splitlines()
    if len(lines) <= most:
        return text.rstrip()
    return "\n".join([f"... {len(lines) - most} lines before these", *lines[-most:]])


def _listing(names: Iterable[str], most: int = 12) -> str:
    shown = sorted(names)
    if not shown:
        return "there are none"
    rest = len(shown) - most
    return "there are: " + ", ".join(shown[:most]) + (f" and {rest} more" if rest > 0 else "")


class NetwarrenError(Exception):
    """The base of every error of this library; it can be pickled, with its data, its text and its notes."""

    def __reduce__(self) -> tuple[object, ...]:
        # By default an exception is made anew from its text alone, which no class here takes.
        return (_restore, (type(self), self.args, self.__dict__))


def _restore(
    kind: type[NetwarrenError], args: tuple[object, ...], state: dict[str, object]
) -> NetwarrenError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


# --- the kernel said no ---------------------------------------------------------------------------


class KernelError(NetwarrenError):
    """The kernel refused an operation.

    ``operation`` says what was being done in words (``add route 10.0.3.0/24 via 172.18.0.3``),
    ``where`` in which namespace (``node-a``), ``errno`` is positive, ``detail`` is the kernel's own
    text (netlink's extended acknowledgement) where it gave one, ``hint`` what to do about it.
    """

    def __init__(
        self, operation: str, errno: int, *, where: str = "", detail: str = "", hint: str = ""
    ) -> None:
        self.operation = operation
        self.errno = errno
        self.where = where
        self.detail = detail
        self.hint = hint
        text = operation + (f" in {where}" if where else "")
        text += f": {errno_name(errno)} ({os.strerror(errno)})"
        text += f": {detail}" if detail else ""
        text += f". {hint}" if hint else ""
        super().__init__(text)


class UnsupportedByKernel(KernelError):
    """This kernel lacks what was asked of it (no veth, no bridge, ...); the hint says how to get it."""


class SandboxError(NetwarrenError):
    """The sandbox cannot be entered.

    ``step`` is what failed (``create a user namespace``), ``cause`` why, as far as the machine tells,
    ``remedy`` what to do about that cause, ``errno`` the kernel's answer (0 where it was not asked).
    """

    def __init__(self, step: str, cause: str, remedy: str, errno: int = 0) -> None:
        self.step = step
        self.cause = cause
        self.remedy = remedy
        self.errno = errno
        answer = f" ({errno_name(errno)})" if errno else ""
        super().__init__(f"cannot {step}{answer}: {cause}. Remedy: {remedy}")


# --- names and addresses --------------------------------------------------------------------------


class InvalidName(NetwarrenError):
    """A name of a pod or node (RFC 1123 label) or service (RFC 1035 label) that Kubernetes would refuse."""

    def __init__(self, kind: str, name: str, why: str) -> None:
        self.kind = kind
        self.name = name
        rfc, first = (1035, "a letter") if kind == "service" else (1123, "a letter or digit")
        super().__init__(
            f"{kind} name {name!r} {why}; a name is an RFC {rfc} label: at most 63 of a-z, 0-9 and '-', "
            f"starting with {first} and ending with a letter or digit"
        )


class DuplicateName(NetwarrenError):
    """A name that is taken in this cluster."""

    def __init__(self, kind: str, name: str, owner: str) -> None:
        self.kind = kind
        self.name = name
        super().__init__(f"{kind} {name!r} exists already ({owner}); remove it first or choose another name")


class UnknownName(NetwarrenError, LookupError):
    """A name nobody in this cluster has; the message lists those there are."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        self.known = tuple(sorted(known))
        super().__init__(f"no {kind} is called {name!r}; {_listing(self.known)}")


class AddressError(NetwarrenError):
    """An address or range that cannot be used; the message says why and what would do."""


class RangeExhausted(AddressError):
    """No address (or no per-node range) is left in a range."""

    def __init__(self, what: str, range_: object, taken: int, remedy: str) -> None:
        self.range = range_
        self.taken = taken
        super().__init__(f"no {what} is left in {range_}: all {taken} are taken; {remedy}")


class AddressTaken(AddressError):
    """An address or range was asked for that somebody has."""

    def __init__(self, what: str, wanted: object, owner: str) -> None:
        self.wanted = wanted
        self.owner = owner
        super().__init__(f"{what} {wanted} is taken by {owner}; ask for another one, or for none at all")


# --- things used after their end ------------------------------------------------------------------


class ClosedError(NetwarrenError):
    """Something was used after its end: a removed pod or node, a closed cluster."""

    def __init__(self, what: str, state: str, remedy: str) -> None:
        self.what = what
        super().__init__(f"{what} {state}; {remedy}")


# --- code and programs in pods --------------------------------------------------------------------


class SteppingError(NetwarrenError):
    """A thread or task cannot stand where it was asked to: a ``with pod`` across an await, blocks left
    out of order, a thread whose namespace cannot be restored."""


class BackgroundError(NetwarrenError):
    """Code started in the background of a pod failed, ended before it was ready, or does not end."""


class ProgramError(NetwarrenError):
    """A program could not be started in a pod, or did not do what was asked of it.

    ``command`` is its argument list, ``returncode`` as in `subprocess` (None where it did not end),
    ``output`` what it wrote, of which the text has the last 100 lines.
    """

    def __init__(
        self, where: str, command: Sequence[str], why: str, *, returncode: int | None = None, output: str = ""
    ) -> None:
        self.where = where
        self.command = tuple(command)
        self.why = why
        self.returncode = returncode
        self.output = output
        text = f"{shlex.join(self.command)} in {where} {why}"
        super().__init__(text + (f"; it wrote:\n{_end_of(output)}" if output.strip() else ""))


class ConfigurationError(NetwarrenError):
    """An option (of a cluster, a marker, the ini file) has a value that means nothing."""


# --- the mesh -------------------------------------------------------------------------------------


class MeshError(NetwarrenError):
    """Something of the mesh (an identity, a certificate, a message, a header) is not what it must be."""


class MeshConfigError(MeshError, ConfigurationError):
    """A mesh's configuration names something that does not exist, or does not say what it must."""
