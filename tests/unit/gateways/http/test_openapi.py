"""The document is right, complete, and the one that is committed."""

from openapi_spec_validator import OpenAPIV31SpecValidator

from commserver.gateways.http import openapi
from commserver.gateways.http.endpoints import ENDPOINTS, Access
from tests.conftest import ROOT


def test_the_document_is_openapi() -> None:
    OpenAPIV31SpecValidator(openapi.document()).validate()


def test_the_committed_document_is_the_generated_one() -> None:
    written = (ROOT / openapi.FILE).read_text()

    assert written == openapi.text(), "run: python -m commserver.gateways.http.openapi"


def test_every_endpoint_of_the_protocol_is_described() -> None:
    described = {
        (method.upper(), path)
        for path, operations in openapi.document()["paths"].items()
        for method in operations
    }

    assert described == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    assert {
        ("POST", "/api/v1/executions"),
        ("GET", "/api/v1/executions/{run}"),
        ("DELETE", "/api/v1/executions/{run}"),
        ("GET", "/api/v1/attempts/{id}"),
    } <= described


def test_whatever_changes_or_shows_something_asks_for_a_token() -> None:
    free = {endpoint.path for endpoint in ENDPOINTS if endpoint.access is Access.ANYBODY}

    assert free == {"/healthz", "/readyz"}
