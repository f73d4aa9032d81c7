"""The AsyncAPI documents: generated from the packets, and true to what both sides say."""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec
import pytest
from jsonschema import (  # type: ignore[import-untyped]  # it ships no types
    Draft202012Validator,
    ValidationError,
)

from commserver.gateways.backend import packets as backend_packets
from commserver.gateways.browser import packets as browser_packets
from scripts import asyncapi
from tests.conftest import ROOT

PROTOCOLS = ROOT / "docs" / "protocols"
PACKETS = {"backend": backend_packets, "browser": browser_packets}
DIRECTIONS = {"send": "Sent", "receive": "Received"}
WAYS = {  # as exchanges and pages show them
    "commserver → backend": ("backend", "send"),
    "backend → commserver": ("backend", "receive"),
    "commserver → browser": ("browser", "send"),
    "browser → commserver": ("browser", "receive"),
}
_PACKET = re.compile(
    rf"({'|'.join(WAYS)})[ |`]+(?:(?:[0-9a-f]{{2}} ){{4}})?(\{{.*?\}})(?=$|`)", re.M
)


@cache
def document(link: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (PROTOCOLS / f"{link}.asyncapi.json").read_text(encoding="utf-8")
    )
    return found


def validators(link: str, action: str) -> Iterator[tuple[str, Draft202012Validator]]:
    """Yield the `cmd` of each packet of one direction, and what its schema says of a packet."""
    whole = document(link)
    for message in whole["operations"][action]["messages"]:
        name = message["$ref"].rpartition("/")[2]
        kind = whole["components"]["messages"][name]
        schema = {"components": whole["components"], **kind["payload"]}
        yield kind["name"], Draft202012Validator(schema)


def shown() -> list[tuple[str, str, str]]:
    """Return every packet that pages and recorded exchanges show: where, which way, its text."""
    files = [*(PROTOCOLS / "exchanges").glob("*.txt"), PROTOCOLS / "backend.md"]
    return [
        (file.name, way, text)
        for file in sorted(files)
        for way, text in _PACKET.findall(file.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize("link", PACKETS)
def test_the_committed_document_is_the_generated_one(link: str) -> None:
    path = PROTOCOLS / f"{link}.asyncapi.json"

    assert path.read_text() == asyncapi.files()[path], "python -m scripts.asyncapi writes it"


@pytest.mark.parametrize("link", PACKETS)
def test_every_packet_is_there_in_its_direction_with_what_it_says(link: str) -> None:
    whole, module = document(link), PACKETS[link]
    declared: dict[str, type[msgspec.Struct]] = {
        kind.__name__: kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, module.Packet) and kind is not module.Packet
    }

    assert whole["components"]["messages"].keys() == declared.keys()
    assert whole["channels"]["link"]["messages"].keys() == declared.keys()
    for action, union in DIRECTIONS.items():
        messages = whole["operations"][action]["messages"]
        said = {message["$ref"].rpartition("/")[2] for message in messages}
        assert said == {kind.__name__ for kind in getattr(module, union).__args__}
    for name, kind in declared.items():
        schema = whole["components"]["schemas"][name]
        assert schema["description"].startswith(str(kind.__doc__).partition("\n")[0])
        assert schema["properties"]["cmd"] == {"enum": [kind.__struct_config__.tag]}
        fields = {field.encode_name for field in msgspec.structs.fields(kind)}
        assert schema["properties"].keys() == fields | {"cmd"}


@pytest.mark.parametrize("link", PACKETS)
def test_every_reference_leads_somewhere(link: str) -> None:
    whole = document(link)
    references = re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(whole))

    assert references
    for reference in references:
        found: Any = whole
        for step in reference.split("/"):
            found = found[step]
        assert found


@pytest.mark.parametrize("link", PACKETS)
def test_every_schema_is_a_schema(link: str) -> None:
    for schema in document(link)["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_packet_that_is_shown_is_as_declared() -> None:
    packets = shown()

    assert len(packets) > 30
    for file, way, text in packets:
        link, action = WAYS[way]
        packet = json.loads(text)
        if "cmd" not in packet:  # KryoNet's own
            continue
        fits = [one for cmd, one in validators(link, action) if cmd == packet["cmd"]]
        assert len(fits) == 1, f"{file}: {text}"
        fits[0].validate(packet)
        if action == "send":
            [schema] = _schemas(link, packet["cmd"], action)
            assert packet.keys() == schema["properties"].keys(), f"{file}: {text}"
            assert all(isinstance(value, str) for value in packet.values()), f"{file}: {text}"


def _schemas(link: str, cmd: str, action: str) -> list[dict[str, Any]]:
    whole = document(link)
    names = {one["$ref"].rpartition("/")[2] for one in whole["operations"][action]["messages"]}
    return [
        whole["components"]["schemas"][name]
        for name in names
        if whole["components"]["messages"][name]["name"] == cmd
    ]


@pytest.mark.parametrize(
    ("link", "action", "packet"),
    [
        ("backend", "receive", {"cmd": "EXERCISE"}),
        ("backend", "receive", {"cmd": "EXERCISE", "id": {}}),
        ("backend", "receive", {"cmd": "EXERCISE", "id": "1", "ack": "perhaps"}),
        ("backend", "send", {"cmd": "EXECUTED", "id": "1", "run": "r", "seq": 1}),
        ("browser", "receive", {"cmd": "ACK", "seq": "x"}),
        ("browser", "send", {"cmd": "ERROR", "error_code": "404", "target": "X", "target_id": ""}),
    ],
)
def test_what_is_no_packet_does_not_fit(link: str, action: str, packet: dict[str, object]) -> None:
    [validator] = [one for cmd, one in validators(link, action) if cmd == packet["cmd"]]

    with pytest.raises(ValidationError):
        validator.validate(packet)


def test_the_program_says_whether_the_documents_are_up_to_date(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    assert asyncapi.main(["--check"]) == 0

    monkeypatch.setattr(asyncapi, "FOLDER", tmp_path)
    assert asyncapi.main(["--check"]) == 1
    assert asyncapi.main([]) == 0
    assert asyncapi.main(["--check"]) == 0
