"""`commserver status`: how the running server is, on one screen."""

import asyncio
import os
import ssl
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commserver.config import Config
from commserver.errors import CommServerError, ConfigError
from commserver.services.status_service import StatusReport, moment

PATH = "/api/v1/admin/status"
DEADLINE = 10.0  # seconds for the whole answer
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  # listened at


class NoAnswer(CommServerError):
    """No server said how it is."""


async def run(config: Config, out: Console, *, url: str, ca: Path | None, as_json: bool) -> bool:
    """Show how the server is; True when all is well.

    url: of its HTTP side, "" for the configured one. ca: whom to trust, None for whom the machine
    trusts.

    Raises:
        NoAnswer: no server did.
        ConfigError: we do not know whom to ask, or are not allowed to.
    """
    address = _checked(url) if url else _address(config)
    answer = await _asked(address, _token(config), _trusted(ca))
    try:
        report = msgspec.json.decode(answer, type=StatusReport)
    except msgspec.MsgspecError as error:
        raise NoAnswer(f"{address} is no server of this version: {error}") from error
    if as_json:
        out.print_json(msgspec.json.encode(report).decode())
    else:
        show(report, out)
    return not report.problems


def _address(config: Config) -> str:
    http = config.http
    if not http.enabled or not http.port:
        raise ConfigError(["status: http.enabled or http.port leaves open whom to ask; use --url"])
    host = ANYWHERE.get(http.host, http.host)
    scheme = "https" if http.tls_cert else "http"
    return f"{scheme}://[{host}]:{http.port}" if ":" in host else f"{scheme}://{host}:{http.port}"


def _checked(url: str) -> str:
    """Return the address that was given.

    Raises:
        ConfigError: it is none.
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ConfigError(["--url: not an address such as http://127.0.0.1:8080"])
    return url.rstrip("/")


def _token(config: Config) -> str:
    """Return the admins' token."""
    if token := os.environ.get("COMMSERVER_TOKEN"):
        return token
    file = config.admin_token_file
    try:
        return file.read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise NoAnswer(
            f"no server has made {file} yet; for one elsewhere set COMMSERVER_TOKEN"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise NoAnswer(f"{file}: {error}") from error


def _trusted(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca) if ca else None)
    except OSError as error:
        raise ConfigError([f"--ca: {ca}: {error}"]) from error


async def _asked(address: str, token: str, trusted: ssl.SSLContext) -> bytes:
    headers = {"Authorization": f"Bearer {token}"}
    # No proxy of the environment is to see the token.
    client = httpx.AsyncClient(verify=trusted, timeout=DEADLINE, trust_env=False)
    try:
        async with asyncio.timeout(DEADLINE), client:
            answer = await client.get(f"{address}{PATH}", headers=headers)
    except TimeoutError as error:
        raise NoAnswer(f"no server at {address} answered in {DEADLINE:g} s") from error
    except httpx.HTTPError as error:
        raise NoAnswer(f"no server answers at {address}: {error}") from error
    except (httpx.InvalidURL, UnicodeError) as error:  # some hosts are none all the same
        raise ConfigError([f"--url: {error}"]) from error
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise NoAnswer(f"the server at {address} does not take our admin token")
    if answer.status_code != httpx.codes.OK:
        raise NoAnswer(f"the server at {address} answers {answer.status_code}")
    return answer.content


def show(report: StatusReport, out: Console) -> None:
    """Print a report on one screen."""
    up = timedelta(seconds=int((report.at - report.since).total_seconds()))
    out.print(f"commserver {report.version}, up since {moment(report.since)} ({up})")
    table = Table(box=None, pad_edge=False, show_header=False)
    for part, items in report.parts.items():
        names = [item.name if item.name != part else "" for item in items]
        for number, (name, item) in enumerate(zip(names, items, strict=True)):
            colour = "red" if item.problem else ""
            table.add_row("" if number else part, Text(name), Text(item.says, colour))
        if not items:
            table.add_row(part, "", "none")
    out.print(table)
    for problem in report.problems:
        out.print(Text.assemble(("! ", "red"), problem))
    if not report.problems:
        out.print("all is well")
