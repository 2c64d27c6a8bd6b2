"""One question and its answer: from the bytes of a query to those that go back, now or later.

Rules: loaded by the first query, because it brings all that decides and dnspython, a tenth of a second.
Does not belong here: sockets and the thread (see `server`), what is answered (see `answer`).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from netwarren.names import wire
from netwarren.names.answer import Answer, Decision, addressed
from netwarren.topology.addresses import parse_address

if TYPE_CHECKING:
    from netwarren.names.server import Listener, Send

_LONGEST = 65535
_REFUSED_TO_SAY = Answer("SERVFAIL", authoritative=False)


def answer(
    listener: "Listener", data: bytes, source: str, transport: str, send: "Send", *, search: bool
) -> None:
    """Decide about the query ``data``, and see to it that it is answered; on the server's thread.

    ``search``: walk the search list, which who asks does not have.
    """
    request = wire.read(data, search=search)
    if isinstance(request, bytes):
        send(request)
    elif request is not None:
        _answer(listener, request, source, transport, send)


def _answer(listener: "Listener", request: wire.Request, source: str, transport: str, send: "Send") -> None:
    names = listener.names()
    decision, asker = names._decide(request.question, source)
    longest = _LONGEST if transport == "tcp" else request.payload

    def finish(found: Answer | None, error: Exception | None = None) -> None:
        names._log(request.question, asker, transport, replace(decision, answer=found), error)
        if found is not None:
            listener.after(decision.delay, partial(send, wire.write(request, found, longest)))

    if decision.outside and names.upstream is not None:
        ask = partial(_try_outside, names.upstream, request, decision)
        listener.elsewhere(ask, lambda found: finish(*(found or (_REFUSED_TO_SAY,))))
    else:
        finish(decision.answer)


def _try_outside(
    upstream: Callable[[str], Sequence[object] | None], request: wire.Request, decision: Decision
) -> tuple[Answer, Exception | None]:
    """`_ask_outside`, and what was raised in it, for whoever wrote ``upstream``."""
    try:
        return _ask_outside(upstream, request, decision), None
    except Exception as error:
        return _REFUSED_TO_SAY, error


def _ask_outside(
    upstream: Callable[[str], Sequence[object] | None], request: wire.Request, decision: Decision
) -> Answer:
    """What ``upstream`` knows, which is about addresses alone."""
    if request.question.type not in ("A", "AAAA"):
        return decision.answer or Answer("NXDOMAIN")
    addresses = upstream(request.question.name)
    if addresses is None:
        return Answer("NXDOMAIN", authoritative=False)
    found = addressed(request.question, [parse_address(str(each)) for each in addresses])
    return replace(found, authoritative=False)
