"""What browsers may do with what they get from us."""

import pytest
from pydantic import ValidationError

from commserver.config import Http
from commserver.web import policy


def test_a_page_is_kept_to_what_is_ours() -> None:
    headers = policy.headers(("ws://school.example:8765",))

    assert headers["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self' ws://school.example:8765; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'none'"
    )
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("host", "sources"),
    [
        ("school.example:8080", ("ws://school.example:8765", "wss://school.example:8765")),
        ("127.0.0.1", ("ws://127.0.0.1:8765", "wss://127.0.0.1:8765")),
        ("[::1]:8080", ("ws:", "wss:")),  # a policy has no words for such an address
        ("", ()),
        ("evil; script-src *", ()),
        ("a b", ()),
        ("a,b:80", ()),
        ("-", ()),
        ("é.example", ()),
    ],
)
def test_the_websocket_is_looked_for_on_the_host_that_was_asked(
    host: str, sources: tuple[str, ...]
) -> None:
    assert policy.websocket_sources("", host, 8765) == sources


def test_a_configured_websocket_is_the_only_one() -> None:
    url = "wss://judge.school.example/live/socket"

    assert policy.websocket_sources(url, "other.example", 1) == ("wss://judge.school.example",)


@pytest.mark.parametrize("url", ["", "wss://school.example", "ws://127.0.0.1:8765/live?x=1"])
def test_the_address_of_a_websocket_can_be_configured(url: str) -> None:
    assert Http(websocket_url=url).websocket_url == url


@pytest.mark.parametrize(
    "url", ["https://school.example", "wss://", "/live", "wss://a;b", "wss://a b", "wss://a'/x"]
)
def test_what_is_no_address_of_a_websocket_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="websocket_url"):
        Http(websocket_url=url)
