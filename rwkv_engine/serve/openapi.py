"""/openapi.json: what may be asked, as a document that programs read. Made from what the endpoints read."""

import inspect
import re
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

from rwkv_engine.serve import states, web
from rwkv_engine.serve.endpoints import Takes
from rwkv_engine.serve.requests import adapter

#: what endpoints send that is no JSON
SENT = {"download": "application/octet-stream", "metrics": "text/plain"}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def document(paths: Iterable[tuple[str, str, Callable[..., Any]]], keys: bool) -> dict[str, Any]:
    """The OpenAPI document of (method, path, endpoint). The web page is no part of it.

    keys  whether a request needs a key.
    """
    listed = [(method, path, endpoint) for method, path, endpoint in paths if endpoint is not web.show]
    kinds = {endpoint.kind for _, _, endpoint in listed if isinstance(endpoint, Takes)}
    references, schemas = _schemas(sorted(kinds, key=lambda kind: kind.__name__))
    found: dict[str, dict[str, Any]] = {}
    for method, path, endpoint in listed:
        plain = re.sub(r":\w+}", "}", path)
        found.setdefault(plain, {})[method.lower()] = _operation(plain, endpoint, references)
    told: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "rwkv serve", "version": version("rwkv-engine")},
        "paths": found,
        "components": {"schemas": {**schemas, "Error": ERROR}},
    }
    if keys:
        told["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        told["security"] = [{"key": []}]
    return told


def _schemas(kinds: list[type[Any]]) -> tuple[dict[type[Any], Any], dict[str, Any]]:
    """(by kind, where its schema is; the schemas by name)"""
    from pydantic import TypeAdapter

    inputs: Any = [(kind, "validation", adapter(kind)) for kind in kinds]
    by_kind, told = TypeAdapter.json_schemas(inputs, ref_template="#/components/schemas/{model}")
    return {kind: schema for (kind, _), schema in by_kind.items()}, told.get("$defs", {})


def _operation(path: str, endpoint: Callable[..., Any], references: dict[type[Any], Any]) -> dict[str, Any]:
    plain = endpoint.answer if isinstance(endpoint, Takes) else endpoint
    name = plain.__name__
    refused = {"description": "Refused", "content": _content({"$ref": "#/components/schemas/Error"})}
    sent = {"description": "The answer", "content": _content({}, SENT.get(name, "application/json"))}
    told: dict[str, Any] = {
        "operationId": f"{plain.__module__.rpartition('.')[2]}_{name}",
        "summary": inspect.getdoc(plain) or name,
        "responses": {"200": sent, "default": refused},
    }
    parameters = [
        {"name": one, "in": "path", "required": True, "schema": {"type": "string"}}
        for one in re.findall(r"{(\w+)}", path)
    ]
    if endpoint is states.upload:
        parameters.append({"name": "model", "in": "query", "required": True, "schema": {"type": "string"}})
        data = _content({"type": "string", "format": "binary"}, "application/octet-stream")
        told["requestBody"] = {"required": True, "content": data}
    if isinstance(endpoint, Takes):
        told["requestBody"] = {"required": True, "content": _content(references[endpoint.kind])}
    return {**told, "parameters": parameters} if parameters else told


def _content(schema: Any, kind: str = "application/json") -> dict[str, Any]:
    return {kind: {"schema": schema}}
