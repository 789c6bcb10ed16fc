"""Describes the unary methods as they are over HTTP, in OpenAPI 3.1: an image of buf's in, the description out.

usage: python -m tools.openapi IMAGE    an image with source info, since comments become descriptions
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

Json = dict[str, Any]

_PACKAGE = "tidings.v1"
_FIELD = FieldDescriptorProto
# Other nodes call it, at an address of its own.
_WITHOUT = {"NodeService"}
_ABOUT = """Chat: conversations, messages, receipts, presence. Each method is a POST with its request in JSON \
(protobuf's mapping: names in camelCase, numbers of 64 bits as strings) or as protobuf, in Connect's protocol; \
gRPC-Web is spoken, too. The live stream of a device is a WebSocket at /ws."""
_SCALARS: dict[int, Json] = {
    _FIELD.TYPE_DOUBLE: {"type": "number", "format": "double"},
    _FIELD.TYPE_FLOAT: {"type": "number", "format": "float"},
    _FIELD.TYPE_BOOL: {"type": "boolean"},
    _FIELD.TYPE_STRING: {"type": "string"},
    _FIELD.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    _FIELD.TYPE_INT32: {"type": "integer", "format": "int32"},
    _FIELD.TYPE_UINT32: {"type": "integer", "minimum": 0},
    _FIELD.TYPE_INT64: {"type": "string", "format": "int64"},
    _FIELD.TYPE_UINT64: {"type": "string", "format": "uint64"},
    _FIELD.TYPE_FIXED64: {"type": "string", "format": "uint64"},
}
_WELL_KNOWN: dict[str, Json] = {
    ".google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    ".google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    ".google.protobuf.FieldMask": {"type": "string", "description": "Paths with commas between."},
    ".google.protobuf.Struct": {"type": "object"},
}
_ERROR: Json = {
    "type": "object",
    "description": "Why a call failed, as Connect says it.",
    "required": ["code"],
    "properties": {
        "code": {"type": "string", "description": "The gRPC status, such as not_found."},
        "message": {"type": "string", "description": "A sentence for developers."},
        "details": {
            "type": "array",
            "description": (
                "google.rpc.ErrorInfo with the reason; BadRequest where a field is at fault; RetryInfo where waiting"
                " helps."
            ),
            "items": {
                "type": "object",
                "properties": {
                    "type": {"type": "string", "description": "The name of the message."},
                    "value": {"type": "string", "contentEncoding": "base64"},
                },
            },
        },
    },
}


class _Contract:
    """The messages and comments of an image."""

    def __init__(self, image: FileDescriptorSet) -> None:
        self.services: list[tuple[ServiceDescriptorProto, str, list[str]]] = []
        self.messages: dict[str, DescriptorProto] = {}
        self.enums: dict[str, EnumDescriptorProto] = {}
        self.comments: dict[str, str] = {}
        for file in image.file:
            if file.package == _PACKAGE:
                self._read(file)

    def _read(self, file: FileDescriptorProto) -> None:
        said = {
            tuple(location.path): _sentences(location.leading_comments)
            for location in file.source_code_info.location
        }
        for at, service in enumerate(file.service):
            methods = [said.get((6, at, 2, i), "") for i in range(len(service.method))]
            self.services.append((service, said.get((6, at), ""), methods))
        for at, enum in enumerate(file.enum_type):
            self._enum(f".{_PACKAGE}.{enum.name}", enum, (5, at), said)
        for at, message in enumerate(file.message_type):
            self._message(f".{_PACKAGE}.{message.name}", message, (4, at), said)

    def _message(
        self,
        name: str,
        message: DescriptorProto,
        path: tuple[int, ...],
        said: dict[tuple[int, ...], str],
    ) -> None:
        self.messages[name] = message
        self.comments[name] = said.get(path, "")
        for at, field in enumerate(message.field):
            self.comments[f"{name}.{field.name}"] = said.get((*path, 2, at), "")
        for at, nested in enumerate(message.nested_type):
            self._message(f"{name}.{nested.name}", nested, (*path, 3, at), said)
        for at, enum in enumerate(message.enum_type):
            self._enum(f"{name}.{enum.name}", enum, (*path, 4, at), said)

    def _enum(
        self,
        name: str,
        enum: EnumDescriptorProto,
        path: tuple[int, ...],
        said: dict[tuple[int, ...], str],
    ) -> None:
        self.enums[name] = enum
        values = "".join(
            f"\n- {value.name}: {said.get((*path, 2, at), '')}"
            for at, value in enumerate(enum.value)
        )
        self.comments[name] = said.get(path, "") + values


def describe(image: FileDescriptorSet) -> Json:
    """The description of an image's unary methods, and of the messages that they need."""
    contract = _Contract(image)
    paths: Json = {}
    tags: list[Json] = []
    wanted: list[str] = []
    for service, about, comments in sorted(contract.services, key=lambda s: s[0].name):
        unary = [
            (method, comment)
            for method, comment in zip(service.method, comments, strict=True)
            if not (method.client_streaming or method.server_streaming)
        ]
        if not unary or service.name in _WITHOUT:
            continue
        tags.append({"name": service.name, "description": about})
        for method, comment in unary:
            paths[f"/{_PACKAGE}.{service.name}/{method.name}"] = {
                "post": _operation(service.name, method, comment)
            }
            wanted += [method.input_type, method.output_type]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tidings", "version": _PACKAGE.rpartition(".")[2], "description": _ABOUT},
        "tags": tags,
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            },
            "responses": {
                "Error": {
                    "description": "The call failed.",
                    "content": {"application/json": {"schema": _reference("Error")}},
                }
            },
            "schemas": dict(sorted({"Error": _ERROR, **_schemas(contract, wanted)}.items())),
        },
    }


def _operation(service: str, method: MethodDescriptorProto, comment: str) -> Json:
    def content(name: str) -> Json:
        return {
            "application/json": {"schema": _reference(_short(name))},
            "application/proto": {"schema": {"type": "string", "format": "binary"}},
        }

    return {
        "operationId": f"{service}.{method.name}",
        "tags": [service],
        "summary": comment.partition(". ")[0].removesuffix(".") + ".",
        "description": comment,
        "requestBody": {"required": True, "content": content(method.input_type)},
        "responses": {
            "200": {"description": "It is done.", "content": content(method.output_type)},
            "default": {"$ref": "#/components/responses/Error"},
        },
    }


def _schemas(contract: _Contract, wanted: list[str]) -> Json:
    """The schemas of some messages, and of whatever these are made of."""
    found: Json = {}
    while wanted:
        name = wanted.pop()
        short = _short(name)
        if short in found:
            continue
        if name in contract.enums:
            values = [value.name for value in contract.enums[name].value]
            found[short] = {"type": "string", "enum": values}
        else:
            found[short] = {"type": "object", "properties": {}}
            for field in contract.messages[name].field:
                found[short]["properties"][field.json_name] = _field(contract, name, field)
                wanted += _parts(contract, field)
        if contract.comments.get(name):
            found[short]["description"] = contract.comments[name]
    return found


def _field(contract: _Contract, message: str, field: FieldDescriptorProto) -> Json:
    entry = contract.messages.get(field.type_name)
    if entry is not None and entry.options.map_entry:
        schema: Json = {"type": "object", "additionalProperties": _one(entry.field[1])}
    elif field.label == _FIELD.LABEL_REPEATED:
        schema = {"type": "array", "items": _one(field)}
    else:
        schema = _one(field)
    comment = contract.comments.get(f"{message}.{field.name}", "")
    if field.HasField("oneof_index") and not field.proto3_optional:
        oneof = contract.messages[message].oneof_decl[field.oneof_index].name
        comment = f"{comment} At most one field of '{oneof}' is set.".strip()
    return {**schema, "description": comment} if comment else schema


def _one(field: FieldDescriptorProto) -> Json:
    if field.type_name in _WELL_KNOWN:
        return _WELL_KNOWN[field.type_name]
    if field.type_name:
        return _reference(_short(field.type_name))
    return _SCALARS[field.type]


def _parts(contract: _Contract, field: FieldDescriptorProto) -> Iterator[str]:
    entry = contract.messages.get(field.type_name)
    if entry is not None and entry.options.map_entry:
        yield from _parts(contract, entry.field[1])
    elif field.type_name and field.type_name not in _WELL_KNOWN:
        yield field.type_name


def _reference(short: str) -> Json:
    return {"$ref": f"#/components/schemas/{short}"}


def _short(name: str) -> str:
    # `Error` is Connect's here.
    short = name.removeprefix(f".{_PACKAGE}.")
    return "ErrorWithin" if short == "Error" else short


def _sentences(comment: str) -> str:
    """A comment as paragraphs."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", re.sub(r"\n +", "\n", comment)).strip()


def main() -> None:
    """Prints the description of an image."""
    image = FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes())
    print(json.dumps(describe(image), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
