"""The messages between the node's agent and its proxy: which pods there are, and that this was done (Istio's ZDS).

Rules: one message a packet, in protobuf, of package ``istio.workload.zds`` (``zds.proto`` of istio/ztunnel); what
cannot be read is refused with one `MeshError`. A pod's network namespace travels beside the message.
Does not belong here: sockets and descriptors (see `packets`), what is done with one (`pod_states`, `agent`).
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from netwarren.errors import MeshError

VERSION = 1
"""Of the protocol: ``V1``."""
MOST_BYTES = 1024
"""Of a message: what a proxy reads at once."""


@dataclass(frozen=True, slots=True)
class WorkloadInfo:
    """What the proxy needs to know of a pod before its mesh tells it more."""

    name: str
    namespace: str
    service_account: str


@dataclass(frozen=True, slots=True)
class Add:
    """There is a pod; its network namespace comes with the message."""

    uid: str
    info: WorkloadInfo | None


@dataclass(frozen=True, slots=True)
class Keep:
    """There is a pod, whose network namespace was told before."""

    uid: str


@dataclass(frozen=True, slots=True)
class Delete:
    """A pod is gone."""

    uid: str


@dataclass(frozen=True, slots=True)
class SnapshotSent:
    """These were all pods that there are now."""


Request: TypeAlias = Add | Keep | Delete | SnapshotSent
"""What the agent says."""


@dataclass(frozen=True, slots=True)
class Ack:
    """What the proxy answers to each request: done, or why not (``error``)."""

    error: str = ""


# --- the schema -----------------------------------------------------------------------------------

_PACKAGE = "istio.workload.zds"
_STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
_MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
_ENUM = descriptor_pb2.FieldDescriptorProto.TYPE_ENUM

# By message: fields by name, each with its number and what it holds. Those of `_ONE_OF` exclude one another.
_FIELDS: dict[str, dict[str, tuple[int, str]]] = {
    "ZdsHello": {"version": (1, "enum Version")},
    "WorkloadInfo": {"name": (1, "string"), "namespace": (2, "string"), "service_account": (3, "string")},
    "AddWorkload": {"uid": (1, "string"), "workload_info": (2, "WorkloadInfo")},
    "KeepWorkload": {"uid": (1, "string")},
    "DelWorkload": {"uid": (2, "string")},
    "SnapshotSent": {},
    "Ack": {"error": (1, "string")},
    "WorkloadRequest": {
        "add": (1, "AddWorkload"),
        "del": (2, "DelWorkload"),
        "snapshot_sent": (3, "SnapshotSent"),
        "keep": (5, "KeepWorkload"),
    },
    "WorkloadResponse": {"ack": (1, "Ack")},
}
_ONE_OF = frozenset({"WorkloadRequest", "WorkloadResponse"})


def _schema() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="zds.proto", package=_PACKAGE, syntax="proto3")
    version = file.enum_type.add(name="Version")
    version.value.add(name="NOT_USED", number=0)
    version.value.add(name="V1", number=VERSION)
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        if name in _ONE_OF:
            message.oneof_decl.add(name="payload")
        for field, (number, holds) in fields.items():
            made = message.field.add(name=field, number=number)
            made.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
            if name in _ONE_OF:
                made.oneof_index = 0
            if holds == "string":
                made.type = _STRING
            else:
                made.type = _ENUM if holds.startswith("enum ") else _MESSAGE
                made.type_name = f".{_PACKAGE}.{holds.removeprefix('enum ')}"
    return file


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()  # of our own: others may have Istio's files in the default one
    pool.Add(_schema())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _FIELDS
    }


_CLASSES = _classes()


def _message(name: str, /, **fields: Any) -> Any:
    try:
        return _CLASSES[name](**fields)
    except (TypeError, ValueError) as error:  # UnicodeEncodeError, of a surrogate, is one
        raise MeshError(f"a message of ZDS cannot say {fields}: {error}") from None


def _encoded(name: str, /, **fields: Any) -> bytes:
    data: bytes = _message(name, **fields).SerializeToString(deterministic=True)
    if len(data) > MOST_BYTES:
        raise MeshError(
            f"a message of ZDS is {len(data)} bytes long, and a proxy reads {MOST_BYTES}: use shorter names"
        )
    return data


def _decoded(name: str, data: bytes) -> Any:
    message = _CLASSES[name]()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise MeshError(f"{data!r} is no {name} of ZDS: {error}") from None
    return message


# --- bytes ----------------------------------------------------------------------------------------


def encode_hello(version: int = VERSION) -> bytes:
    """What a proxy says first."""
    return _encoded("ZdsHello", version=version)


def decode_hello(data: bytes) -> int:
    """The version that a proxy speaks; raises `MeshError` for one that is not `VERSION`, and for other bytes."""
    version = int(_decoded("ZdsHello", data).version)
    if version != VERSION:
        raise MeshError(f"a proxy speaks version {version} of ZDS, and the agent version {VERSION}")
    return version


def encode_request(request: Request) -> bytes:
    """A `Request` as a packet carries it; raises `MeshError` where that is longer than `MOST_BYTES`."""
    match request:
        case Add(uid, info):
            told = {} if info is None else {"workload_info": _info(info)}
            return _encoded("WorkloadRequest", add=_message("AddWorkload", uid=uid, **told))
        case Keep(uid):
            return _encoded("WorkloadRequest", keep=_message("KeepWorkload", uid=uid))
        case Delete(uid):
            return _encoded("WorkloadRequest", **{"del": _message("DelWorkload", uid=uid)})
        case SnapshotSent():
            return _encoded("WorkloadRequest", snapshot_sent=_message("SnapshotSent"))


def _info(info: WorkloadInfo) -> Any:
    return _message(
        "WorkloadInfo", name=info.name, namespace=info.namespace, service_account=info.service_account
    )


def decode_request(data: bytes) -> Request:
    """The `Request` in a packet; raises `MeshError` where there is none."""
    message = _decoded("WorkloadRequest", data)
    match message.WhichOneof("payload"):
        case "add":
            add = message.add
            told = add.workload_info
            info = WorkloadInfo(told.name, told.namespace, told.service_account)
            return Add(add.uid, info if add.HasField("workload_info") else None)
        case "keep":
            return Keep(message.keep.uid)
        case "del":
            return Delete(getattr(message, "del").uid)
        case "snapshot_sent":
            return SnapshotSent()
    raise MeshError(f"{data!r} is a WorkloadRequest of ZDS without a payload that is known here")


def encode_ack(ack: Ack) -> bytes:
    """An `Ack` as a packet carries it; an error that is too long for that is cut."""
    most = MOST_BYTES - 16
    error = ack.error.encode(errors="replace")[:most].decode(errors="ignore")
    return _encoded("WorkloadResponse", ack=_message("Ack", error=error))


def decode_ack(data: bytes) -> Ack:
    """The `Ack` in a packet; raises `MeshError` where there is none."""
    message = _decoded("WorkloadResponse", data)
    if message.WhichOneof("payload") != "ack":
        raise MeshError(f"{data!r} is a WorkloadResponse of ZDS without an ack")
    return Ack(message.ack.error)
