"""A client that holds every answer against the OpenAPI document."""

import re
from typing import Any

import httpx
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it ships none

from commserver.gateways.http import openapi

DOCUMENT = openapi.document()
JSON = "application/json"
PATHS = {
    re.compile(re.sub(r"\{\w+\}", "[^/]+", path)): operations
    for path, operations in DOCUMENT["paths"].items()
}


class Checked(httpx.AsyncClient):
    """Fails a test whose answers are not as they are described."""

    async def send(self, request: httpx.Request, **more: Any) -> httpx.Response:
        response = await super().send(request, **more)
        if request.method not in ("HEAD", "OPTIONS"):
            conforms(request.method, request.url.path, response)
        return response


def conforms(method: str, path: str, response: httpx.Response) -> None:
    """Assert that an answer is as it is described for this method and path."""
    assert response.headers["content-type"] == JSON
    if path.endswith("/openapi.json"):
        return
    schema = {"$ref": "#/components/schemas/Problem"}
    operation = _operation(method, path)
    if operation and response.status_code != 405:
        described = operation["responses"]
        assert str(response.status_code) in described, (method, path, response.status_code)
        schema = described[str(response.status_code)]["content"][JSON]["schema"]
    matches(schema, response.json())
    if response.is_error:
        assert response.json()["error_code"] == str(response.status_code)


def matches(schema: dict[str, Any], value: object) -> None:
    """Assert that a value is what a schema of the document says."""
    Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)


def _operation(method: str, path: str) -> dict[str, Any] | None:
    for pattern, operations in PATHS.items():
        if pattern.fullmatch(path):
            found: dict[str, Any] | None = operations.get(method.lower())
            return found
    return None
