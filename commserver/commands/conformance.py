"""`commserver conformance`: checks other people's programs against the protocol page."""

import asyncio
import json
import shlex
import ssl
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from commserver.errors import ConfigError
from commserver.reference.conformance import (
    RULES,
    Conformance,
    Finding,
    NotHandedIn,
    Provoke,
    Target,
)

FAILED = 1
SUBMIT_TIMEOUT = 60.0  # seconds for the command that hands something in
A_PERSON = 120.0  # seconds for a person to hand something in
SHOWN = 200  # characters of what a command that failed has said
COLOURS = {"ok": "green", "failed": "red", "not seen": "yellow"}

app = typer.Typer(no_args_is_help=True, help="Check other people's programs.")


@app.callback()
def _group() -> None:
    """Check other people's programs."""


@app.command()
def backend(
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the backend listens.")],
    token: Annotated[str, typer.Option(help="The SERVER_TOKEN that it takes.")],
    framing: Annotated[Literal["lines", "length"], typer.Option()] = "lines",
    tls: Annotated[bool, typer.Option("--tls", help="It listens with TLS.")] = False,
    tls_ca: Annotated[
        Path | None, typer.Option(help="Whom to trust, PEM; else whom this machine trusts.")
    ] = None,
    submit: Annotated[
        str, typer.Option(metavar="COMMAND", help="Hands something in; run once a check, no shell.")
    ] = "",
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Ask a person to hand something in.")
    ] = False,
    user_token: Annotated[str, typer.Option(help="One of a user, if it answers lookups.")] = "",
    idle: Annotated[float, typer.Option(min=0, help="Seconds of silence to survive.")] = 30.0,
    settle: Annotated[
        float, typer.Option(min=0.01, help="Seconds to wait for what must not come.")
    ] = 1.0,
    timeout: Annotated[
        float | None, typer.Option(min=0.01, help="Seconds for what must come; else 10, or 120.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Check a platform's backend, which listens: dial it as commserver does, rule by rule.

    It pushes attempts only when something is handed in: give a command, or do it when asked. What
    it is told of their ends is made up. Exits 1 if a rule is broken.
    """
    if submit and interactive:
        raise ConfigError(["--submit and --interactive: one of them"])
    host, port = _address(listen)
    provoke = partial(_run, _words(submit)) if submit else _ask if interactive else None
    target = Target(
        host,
        port,
        token,
        framing=framing,
        tls=_context(tls_ca) if tls or tls_ca else None,
        user_token=user_token,
        settle=settle,
        idle=idle,
        patience=timeout or (A_PERSON if interactive else 10.0),
    )
    findings = asyncio.run(_examined(target, provoke))
    good = not any(finding.outcome == "failed" for finding in findings)
    if as_json:
        rules = [
            {"rule": f.rule, "title": RULES[f.rule], "outcome": f.outcome, "why": f.why}
            for f in findings
        ]
        typer.echo(json.dumps({"ok": good, "rules": rules}))
    else:
        _show(findings)
    raise typer.Exit(0 if good else FAILED)


async def _examined(target: Target, provoke: Provoke | None) -> Sequence[Finding]:
    return await Conformance(target, provoke).run()


def _show(findings: Sequence[Finding]) -> None:
    for one in findings:
        outcome = typer.style(f"{one.outcome:<8}", fg=COLOURS[one.outcome])
        typer.echo(f"{outcome}  {one.rule:<9}  {RULES[one.rule]}: {one.why}")


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError([f"--listen: {listen!r} is not HOST:PORT"])
    return host.strip("[]"), int(port)


def _words(command: str) -> Sequence[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ConfigError([f"--submit: {error}"]) from error


def _context(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:
        raise ConfigError([f"--tls-ca: {error}"]) from error


async def _run(words: Sequence[str]) -> None:
    """Run the command that hands something in.

    Raises:
        NotHandedIn: it failed.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *words, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
        )
    except OSError as error:
        raise NotHandedIn(f"--submit: {error}") from error
    try:
        async with asyncio.timeout(SUBMIT_TIMEOUT):
            _, said = await process.communicate()
    except TimeoutError as error:
        raise NotHandedIn(f"--submit took more than {SUBMIT_TIMEOUT:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        why = said.decode(errors="replace").strip()[-SHOWN:]
        raise NotHandedIn(f"--submit exited with {process.returncode}: {why}")


async def _ask() -> None:
    """Ask a person; how long that may take is the deadline of what must come then."""
    typer.echo("hand something in now", err=True)
