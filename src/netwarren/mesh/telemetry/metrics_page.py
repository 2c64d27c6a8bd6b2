"""The page of metrics, at ``/metrics`` and ``/stats/prometheus`` of port 15020.

Rules: the text is the same for whoever asks; its type and coding are what the client accepts.
Does not belong here: the text (see `registry`), the codings (see `compression`).
"""

from http import HTTPStatus

from netwarren.mesh.telemetry import compression
from netwarren.mesh.telemetry.http import PLAIN, Request, Response, empty
from netwarren.mesh.telemetry.metrics import Metrics

OPEN_METRICS = "application/openmetrics-text;charset=utf-8;version=1.0.0"

_PATHS = frozenset({"/metrics", "/stats/prometheus"})


def metrics_page(metrics: Metrics, request: Request) -> Response:
    """The answer of port 15020."""
    if request.path not in _PATHS:
        return empty(HTTPStatus.NOT_FOUND)
    accepted = {part.partition(";")[0].strip().lower() for part in request.header("accept").split(",")}
    body, coding = compression.encode(metrics.encode().encode(), request.header("accept-encoding"))
    headers = [("vary", "accept, accept-encoding")]
    if coding != "identity":
        headers.append(("content-encoding", coding))
    content_type = OPEN_METRICS if "application/openmetrics-text" in accepted else PLAIN
    return Response(HTTPStatus.OK, body, content_type, tuple(headers))
