"""The OpenAPI document, made from the table of endpoints and the packets.

    python -m commserver.gateways.http.openapi [FILE]

writes it, to docs/protocols/http.openapi.json unless another file is named.
"""

import inspect
import re
import sys
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from commserver import __version__
from commserver.gateways.http import packets
from commserver.gateways.http.actions import KEY_LIMIT, MOST
from commserver.gateways.http.endpoints import ENDPOINTS, Access, Endpoint
from commserver.gateways.http.packets import Executed, Problem, RunError

FILE = Path("docs/protocols/http.openapi.json")
REFERENCE = "#/components/schemas/{name}"
JSON = "application/json"

# Of every endpoint: what the server itself refuses, and what may go wrong in it.
ALWAYS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
GUARDED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)


def document() -> dict[str, Any]:
    """Return the whole document, as JSON has it."""
    kinds = [Problem, Executed, RunError]
    for endpoint in ENDPOINTS:
        kinds += [*endpoint.answers.values(), *([endpoint.request] if endpoint.request else [])]
    kinds = list(dict.fromkeys(kinds))
    _, schemas = msgspec.json.schema_components(kinds, ref_template=REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "commserver",
            "version": __version__,
            "summary": "Takes attempts, tells how they went, shows admins how the server is.",
        },
        "paths": paths,
        "webhooks": {"final": {"post": _webhook()}},
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                access.value: {"type": "http", "scheme": "bearer", "description": description}
                for access, description in (
                    (Access.SERVER, "The platform's token, `http.token`."),
                    (Access.ADMIN, "The admins' token, from the file `admin.token`."),
                )
            },
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    guarded = endpoint.access is not Access.ANYBODY
    errors = {*ALWAYS, *(GUARDED if guarded else ()), *endpoint.errors}
    if endpoint.request:
        errors.add(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    operation: dict[str, Any] = {
        "operationId": endpoint.action.__name__.removeprefix("on_"),
        "summary": inspect.getdoc(endpoint.action),
        "security": [{endpoint.access.value: []}] if guarded else [],
        "parameters": list(_parameters(endpoint)),
        "responses": {
            **{str(s.value): _response(s, _schema(k)) for s, k in endpoint.answers.items()},
            **{str(s.value): _response(s, _schema(Problem)) for s in sorted(errors)},
        },
    }
    if endpoint.request:
        body = {"required": True, "content": {JSON: {"schema": _schema(endpoint.request)}}}
        operation["requestBody"] = body
    return operation


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    text = {"type": "string"}
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": text}
        for name in re.findall(r"\{(\w+)\}", endpoint.path)
    ]
    parameters += [
        {
            "name": name,
            "in": "query",
            "description": description,
            "schema": {"type": "integer", "minimum": 1, "maximum": MOST},
        }
        for name, description in endpoint.query.items()
    ]
    if endpoint.keyed:
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "The same key and body get the same run for 7 days.",
                "schema": {**text, "pattern": f"^[!-~]{{1,{KEY_LIMIT}}}$"},
            }
        )
    return parameters


def _webhook() -> dict[str, Any]:
    headers = {
        "X-Commserver-Seq": "The number of this final, in order.",
        "X-Commserver-Timestamp": "When this was sent, in seconds since 1970.",
        "X-Commserver-Signature": "sha256= and the hex HMAC-SHA256 of timestamp, dot and body.",
    }
    told = {"oneOf": [_schema(Executed), _schema(RunError)]}
    return {
        "summary": "A run has ended; sent again until the answer is 2xx.",
        "parameters": [
            {"name": name, "in": "header", "description": meaning, "schema": {"type": "string"}}
            for name, meaning in headers.items()
        ],
        "requestBody": {"required": True, "content": {JSON: {"schema": told}}},
        "responses": {"2XX": {"description": "It has arrived."}},
    }


def _response(status: HTTPStatus, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": status.phrase, "content": {JSON: {"schema": schema}}}


def _schema(kind: Any) -> dict[str, Any]:
    schema: dict[str, Any] = msgspec.json.schema_components([kind], ref_template=REFERENCE)[0][0]
    return schema


def text() -> str:
    """Return the document as it is committed."""
    return msgspec.json.format(packets.encode(document()), indent=2).decode() + "\n"


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else FILE).write_text(text(), encoding="utf-8")
