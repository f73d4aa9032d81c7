"""The page for a platform's developers shows what was recorded, and names what there is."""

import re

from typer.testing import CliRunner

from commserver.cli import cli
from commserver.config import Backend
from commserver.core.verdicts import Cause, Failure, Status
from commserver.gateways import words
from commserver.reference.conformance import RULES
from tests.conftest import ROOT

PROTOCOLS = ROOT / "docs" / "protocols"


def page() -> str:
    return (PROTOCOLS / "backend.md").read_text(encoding="utf-8")


def test_the_life_of_an_attempt_is_the_recorded_one() -> None:
    recorded = (PROTOCOLS / "exchanges" / "whole-life.txt").read_text(encoding="utf-8")
    packets = recorded.partition("\n")[2]

    assert f"```\n{packets}```" in page()


def test_the_diagram_has_every_packet_of_the_recorded_life() -> None:
    [diagram] = re.findall(r"```mermaid\n(.*?)```", page(), re.DOTALL)
    recorded = (PROTOCOLS / "exchanges" / "whole-life.txt").read_text(encoding="utf-8")

    drawn = re.findall(r"(\w)->>(\w): (\w+)", diagram)
    sides = {"backend": "P", "commserver": "C", "browser": "B"}
    said = [
        (sides[one], sides[other], command)
        for one, other, command in re.findall(
            r'^(\w+) → (\w+)  \{"cmd":"(\w+)"', recorded, re.MULTILINE
        )
    ]
    assert sorted(drawn) == sorted(said)


def test_every_rule_of_the_check_is_named() -> None:
    for rule, title in RULES.items():
        assert f"| `{rule}` | {title} |" in page()


def test_every_status_and_every_error_is_named() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (\w+) \| (\w*)", page(), re.MULTILINE)
    finals = {
        (said.code, said.target, said.fault.value)
        for said in (words.ending(Failure(cause, ""), None) for cause in Cause)
    }

    assert [status for status in Status if status.value not in page()] == []
    assert set(rows) == finals | {("404", "EXERCICE", "")}


def test_every_key_that_is_named_is_one() -> None:
    named = set(re.findall(r"`backend\.(\w+)", page())) - {"asyncapi"}

    assert named
    assert named <= Backend.model_fields.keys()


def test_every_option_that_is_named_is_one() -> None:
    lines = [line for line in page().splitlines() if not line.strip().startswith("curl ")]
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", "\n".join(lines)))
    helps = [
        CliRunner().invoke(cli, [*command, "--help"], env={"COLUMNS": "200"}).output
        for command in (["backend"], ["conformance", "backend"])
    ]

    assert named
    assert [option for option in named if not any(option in text for text in helps)] == []
