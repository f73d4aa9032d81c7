"""Writes the AsyncAPI documents of both links, from the declarations of their packets.

python -m scripts.asyncapi          writes docs/protocols/*.asyncapi.json
python -m scripts.asyncapi --check  writes nothing; exits 1 if they are not what it would write
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import msgspec

from commserver.gateways.backend import packets as backend
from commserver.gateways.browser import packets as browser

FOLDER = Path(__file__).parents[1] / "docs" / "protocols"
REF = "#/components/schemas/{name}"


@dataclass(frozen=True, slots=True)
class Link:
    """One link, and what commserver sends and receives on it.

    protocol: as AsyncAPI calls it. host: where it is by default.
    """

    name: str
    protocol: str
    host: str
    server: str
    description: str
    sent: Sequence[type[msgspec.Struct]]
    received: Sequence[type[msgspec.Struct]]


LINKS = (
    Link(
        name="backend",
        protocol="tcp",
        host="127.0.0.1:9500",
        server="A teaching platform's backend, which listens; commserver dials in.",
        description=(
            "One JSON object a frame: one a line (UTF-8, ended by a line feed), or after its "
            "length in four bytes, the highest first. commserver says HANDSHAKE first. Fields that "
            "are not named here are ignored."
        ),
        sent=get_args(backend.Sent),
        received=get_args(backend.Received),
    ),
    Link(
        name="browser",
        protocol="ws",
        host="127.0.0.1:8765",
        server="commserver, which listens; browsers dial in.",
        description=(
            "One JSON object a WebSocket text message. The browser says AUTH first. Every value is "
            'a string, and "" where there is nothing to say. Fields that are not named here are '
            "ignored."
        ),
        sent=get_args(browser.Sent),
        received=get_args(browser.Received),
    ),
)


def document(link: Link) -> dict[str, Any]:
    """Return a link's AsyncAPI 3.0 document, from commserver's side: it sends and receives."""
    kinds = list(dict.fromkeys([*link.sent, *link.received]))
    _, schemas = msgspec.json.schema_components(kinds, schema_hook=_other, ref_template=REF)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": f"commserver: the {link.name} link",
            "version": "1.0.0",
            "description": link.description,
        },
        "defaultContentType": "application/json",
        "servers": {
            link.name: {
                "host": link.host,
                "protocol": link.protocol,
                "description": link.server,
            }
        },
        "channels": {
            "link": {
                "address": "/" if link.protocol == "ws" else None,
                "servers": [{"$ref": f"#/servers/{link.name}"}],
                "messages": {
                    kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"}
                    for kind in kinds
                },
            }
        },
        "operations": {
            "send": _operation("send", link.sent),
            "receive": _operation("receive", link.received),
        },
        "components": {
            "messages": {kind.__name__: _message(kind) for kind in kinds},
            "schemas": schemas,
        },
    }


def _other(kind: type) -> dict[str, Any]:
    """Return the schema of a field that may hold anything."""
    if kind is not object:
        raise NotImplementedError
    return {"description": "Anything."}


def _operation(action: str, kinds: Sequence[type[msgspec.Struct]]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": "#/channels/link"},
        "messages": [{"$ref": f"#/channels/link/messages/{kind.__name__}"} for kind in kinds],
    }


def _message(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {
        "name": kind.__struct_config__.tag,
        "summary": (kind.__doc__ or "").partition("\n")[0],
        "payload": {"$ref": REF.format(name=kind.__name__)},
    }


def files() -> dict[Path, str]:
    """Return the files as they must be."""
    return {
        FOLDER / f"{link.name}.asyncapi.json": json.dumps(document(link), indent=2) + "\n"
        for link in LINKS
    }


def main(arguments: Sequence[str]) -> int:
    """Write the files, or with --check compare them; returns the exit status."""
    if "--check" in arguments:
        return 1 if [p for p, text in files().items() if not _is(p, text)] else 0
    for path, text in files().items():
        path.write_text(text)
    return 0


def _is(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
