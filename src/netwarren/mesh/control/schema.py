"""Protobuf messages described in a line each, for protocols of which only the wire counts.

Rules: ``"uid 20 string, addresses 3 *bytes, waypoint 8 Gateway"``: a field's name, number and type, ``*`` for repeated; an
enum is an int32 and a map a repeated message of key and value, which is what they are on the wire. ``?`` is for scalars
that may be absent, and those of which one is there (``optional`` and ``oneof`` of proto3).
Does not belong here: what the messages say.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from netwarren.errors import MeshError

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32,
    "double": _Field.TYPE_DOUBLE,
}

STRUCT = {
    "Struct": "fields 1 *FieldsEntry",
    "FieldsEntry": "key 1 string, value 2 Value",
    "Value": "string_value 3 ?string",
}
"""google.protobuf.Struct, as far as it is used: texts by name."""


def classes(package: str, messages: Mapping[str, str]) -> dict[str, Any]:
    """The messages' classes by name; in a pool of their own, for others may have the real ones in the default one."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for each in filter(None, map(str.strip, fields.split(","))):
            field, number, kind = each.split()
            made = message.field.add(name=field, number=int(number))
            made.label = _Field.LABEL_REPEATED if kind.startswith("*") else _Field.LABEL_OPTIONAL
            if kind.startswith("?"):  # descriptor.proto: one that may be absent is in a oneof of its own
                made.proto3_optional, made.oneof_index = True, len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{field}")
            kind = kind.lstrip("*?")
            if kind in _SCALARS:
                made.type = _SCALARS[kind]
            else:
                made.type, made.type_name = _Field.TYPE_MESSAGE, f".{package}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in messages
    }


def decoded(kind: Any, data: bytes) -> Any:
    """A message of a class; raises `MeshError` for bytes that are none."""
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise MeshError(f"that is no {kind.DESCRIPTOR.name}: {error}") from None
    return message


def encoded(message: Any) -> bytes:
    """A message's bytes, the same each time."""
    return bytes(message.SerializeToString(deterministic=True))
