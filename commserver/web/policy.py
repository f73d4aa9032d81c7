"""What a browser may do with what it gets from us: the headers of every answer to a person."""

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_IPV6 = re.compile(r"\[[0-9A-Fa-f:.]{2,45}\]")

CONSTANT = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def headers(connect: Sequence[str] = ()) -> dict[str, str]:
    """Return the headers that keep a page to what is ours.

    connect: where its scripts may connect to, beside where it came from.
    """
    policy = (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        " ".join(("connect-src 'self'", *connect)),
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return {"Content-Security-Policy": "; ".join(policy), **CONSTANT}


def websocket_sources(url: str, host: str, port: int) -> tuple[str, ...]:
    """Return where the WebSocket is, in the words of a content security policy.

    url: the configured one; where there is none, the port of the host that was asked (`host` is
    what the request says, which may be anything).
    """
    if url:
        parts = urlsplit(url)
        return (f"{parts.scheme}://{parts.netloc}",)
    name = re.sub(r":[0-9]*$", "", host)
    if _IPV6.fullmatch(name):  # which those words do not have
        return ("ws:", "wss:")
    return (f"ws://{name}:{port}", f"wss://{name}:{port}") if _NAME.fullmatch(name) else ()
