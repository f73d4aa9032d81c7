"""The check of other people's backends: by each rule, those fail that break it, and no others."""

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from commserver.cli import cli
from commserver.commands import conformance as command
from commserver.errors import ConfigError
from commserver.reference.backend import ReferenceBackend
from commserver.reference.conformance import (
    RULES,
    Conformance,
    Finding,
    NotHandedIn,
    Provoke,
    Target,
)
from tests.integration.integrators.small_backends import (
    RIGHT,
    TOKEN,
    USER_TOKEN,
    WRONG,
    AnswersAnotherLookup,
    HangsUpWhenIdle,
    IgnoresAHandshakeWithMore,
    KryoNet,
    SaysAnObjectForAnId,
    Silent,
    SmallBackend,
)

SETTLE, IDLE, PATIENCE = 0.15, 1.6, 1.2  # seconds

Findings = Mapping[str, Finding]


def target(port: int, framing: str = "lines", **more: float) -> Target:
    where = Target("127.0.0.1", port, TOKEN, framing=framing, user_token=USER_TOKEN)
    times = {"settle": SETTLE, "idle": 0.0, "patience": PATIENCE, **more}
    return replace(where, **times)  # type: ignore[arg-type]  # it takes each key for any field


async def examined(where: Target, provoke: Provoke | None) -> Findings:
    found = await Conformance(where, provoke).run()
    return {finding.rule: finding for finding in found}


def having(findings: Findings, outcome: str) -> list[str]:
    return [rule for rule, finding in findings.items() if finding.outcome == outcome]


@pytest.fixture(scope="module")
def all_findings() -> Mapping[type[SmallBackend], Findings]:
    """What is found about every small backend; all are examined at once, since it is waiting."""

    async def one(kind: type[SmallBackend]) -> Findings:
        async with kind() as backend:
            idle = IDLE if kind is HangsUpWhenIdle else 0.0
            where = target(backend.port, kind.framing, idle=idle)
            return await examined(where, backend.hand_in)

    async def work() -> Mapping[type[SmallBackend], Findings]:
        kinds = (*RIGHT, *WRONG)
        return dict(zip(kinds, await asyncio.gather(*map(one, kinds)), strict=True))

    return asyncio.run(work())


@pytest.mark.parametrize("kind", RIGHT)
def test_a_right_backend_breaks_no_rule(
    kind: type[SmallBackend], all_findings: Mapping[type[SmallBackend], Findings]
) -> None:
    findings = all_findings[kind]

    assert list(findings) == list(RULES)
    assert having(findings, "failed") == []
    unseen: Mapping[type[SmallBackend], list[str]]
    unseen = {KryoNet: [], Silent: ["keepalive", "ack", "lookup"]}
    assert having(findings, "not seen") == unseen.get(kind, ["keepalive"])


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_backend_fails_by_the_one_rule_that_it_breaks(
    kind: type[SmallBackend], all_findings: Mapping[type[SmallBackend], Findings]
) -> None:
    findings = all_findings[kind]

    assert having(findings, "failed") == [WRONG[kind]], findings


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (SaysAnObjectForAnId, 'its id is {"id": "42"}, neither a string nor an integer'),
        (AnswersAnotherLookup, "it answered with an authentication_id that was not asked: 1"),
    ],
)
def test_what_is_wrong_is_said(
    kind: type[SmallBackend], why: str, all_findings: Mapping[type[SmallBackend], Findings]
) -> None:
    assert all_findings[kind][WRONG[kind]].why == why


def test_every_rule_is_broken_by_somebody() -> None:
    assert set(WRONG.values()) == set(RULES)


async def test_where_nobody_hands_anything_in_what_needs_it_is_not_seen() -> None:
    async with SmallBackend() as backend:
        findings = await examined(target(backend.port), None)

    assert having(findings, "failed") == []
    assert having(findings, "not seen") == ["exercise", "stranger", "keepalive", "reconnect", "ack"]


async def test_a_handshake_that_is_not_taken_is_seen_without_anything_being_handed_in() -> None:
    async with IgnoresAHandshakeWithMore() as backend:
        findings = await examined(target(backend.port), None)

    assert having(findings, "failed") == ["unknown"]


async def test_where_handing_in_fails_what_needs_it_says_so() -> None:
    async def fail() -> None:
        raise NotHandedIn("the database is away")

    async with SmallBackend() as backend:
        findings = await examined(target(backend.port), fail)

    assert having(findings, "failed") == []
    assert findings["exercise"] == Finding("exercise", "not seen", "the database is away")


async def test_where_nobody_listens_nothing_else_is_seen() -> None:
    async with SmallBackend() as backend:
        port = backend.port

    findings = await examined(target(port), None)

    assert having(findings, "failed") == ["handshake"]
    assert having(findings, "not seen") == [rule for rule in RULES if rule != "handshake"]


# -- as a command ---------------------------------------------------------------------------------

SUBMIT = (
    "import urllib.request as r;r.urlopen('http://127.0.0.1:{}/submit',b'{{\"id\":42}}').close()"
)


@asynccontextmanager
async def reference(**options: object) -> AsyncIterator[ReferenceBackend]:
    options = {"ack": True, "clients": {USER_TOKEN: 12}, **options}
    backend = ReferenceBackend(TOKEN, **options)  # type: ignore[arg-type]  # a test's own words
    await backend.start("127.0.0.1", 0, http_port=0)
    try:
        yield backend
    finally:
        await backend.stop()


async def run(*arguments: str) -> tuple[int, str]:
    """Run the command in a thread of its own, as a process would; returns its status and output."""
    times = ("--settle", "0.05", "--idle", "0.1", "--timeout", "0.8")
    words = ["backend", "--token", TOKEN, *times, *arguments]
    result = await asyncio.to_thread(CliRunner().invoke, command.app, words)
    return result.exit_code, result.output


@pytest.mark.parametrize("framing", ["lines", "length"])
async def test_the_reference_backend_passes(framing: str) -> None:
    async with reference(framing=framing) as backend:
        submit = f"{sys.executable} -c {json.dumps(SUBMIT.format(backend.http_port))}"
        code, said = await run(
            *("--listen", f"127.0.0.1:{backend.port}", "--framing", framing, "--json"),
            *("--submit", submit, "--user-token", USER_TOKEN),
        )

    report = json.loads(said)
    assert code == 0, report
    assert report["ok"] is True
    assert [one["rule"] for one in report["rules"]] == list(RULES)
    outcomes = {one["rule"]: one["outcome"] for one in report["rules"]}
    assert outcomes == dict.fromkeys(RULES, "ok") | (
        {"keepalive": "not seen"} if framing == "lines" else {}
    )


@pytest.mark.parametrize("handshake", ["ok", "silent", "error"])
async def test_every_answer_to_a_handshake_passes(handshake: str) -> None:
    async with reference(handshake=handshake) as backend:

        async def hand_in() -> None:
            backend.submit("42")

        findings = await examined(target(backend.port, settle=0.05), hand_in)

    assert having(findings, "failed") == []
    assert having(findings, "not seen") == ["keepalive"]


async def test_a_broken_rule_is_shown_and_exits_1() -> None:
    async with reference(handshake="error") as backend:
        code, said = await run("--listen", f"127.0.0.1:{backend.port}", "--token", "another")

    assert code == 1
    assert "it answered ERROR: is this its token?" in said


async def test_a_command_that_fails_is_told() -> None:
    async with reference() as backend:
        words = ("--listen", f"127.0.0.1:{backend.port}", "--json", "--submit")
        fails = f"{sys.executable} -c 'raise SystemExit(\"no such student\")'"
        _, failed = await run(*words, fails)
        _, missing = await run(*words, "/nowhere/at-all")

    assert "--submit exited with 1: no such student" in failed
    assert "--submit: [Errno 2]" in missing


async def test_with_interactive_a_person_is_asked() -> None:
    async with reference() as backend:
        code, said = await run("--listen", f"127.0.0.1:{backend.port}", "--interactive")

    assert "hand something in now" in said
    assert code == 1  # nobody did


async def test_tls_is_checked_against_the_given_authority(
    certificate: tuple[Path, Path],
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    async with reference(tls=context) as backend:
        address = ("--listen", f"127.0.0.1:{backend.port}")
        trusted, _ = await run(*address, "--tls-ca", str(certificate[0]))
        strange, said = await run(*address, "--tls")

    assert trusted == 0
    assert strange == 1
    assert "it cannot be dialled" in said


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (["--listen", "here"], "'here' is not HOST:PORT"),
        (["--listen", "127.0.0.1:0"], "is not HOST:PORT"),
        (["--listen", "h:1", "--submit", "a", "--interactive"], "--interactive: one of them"),
        (["--listen", "h:1", "--submit", "'"], "--submit: No closing quotation"),
        (["--listen", "h:1", "--tls-ca", "/nowhere"], "--tls-ca: "),
    ],
)
def test_a_wrong_option_is_a_sentence(wrong: list[str], why: str) -> None:
    result = CliRunner().invoke(command.app, ["backend", "--token", "x", *wrong])

    assert isinstance(result.exception, ConfigError)
    assert why in str(result.exception)


def test_the_command_line_knows_it() -> None:
    result = CliRunner().invoke(cli, ["conformance", "backend", "--help"])

    assert result.exit_code == 0
