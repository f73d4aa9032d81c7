"""Behind a real nginx, set up as docs/operations.md says."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.typing import EventDict
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from commserver.trial import free_port
from tests.conftest import ROOT, missing
from tests.integration.links.conftest import SECRET
from tests.integration.links.site import ADA, HOST, PATIENCE, Site, closing, packet, said

OK = '{"cmd":"OK"}'
AUTH = f'{{"cmd":"AUTH","TOKEN":"{SECRET}"}}'
ROOM, ELSEWHERE = "127.0.0.2", "127.0.0.3"  # clients, on this very machine
OUTER = "127.0.0.9"  # where the proxy before the proxy calls from

CONFIG = """
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {host}:{inner};
{location}
    }}
    server {{
        listen {host}:{outer};
        location / {{
            proxy_pass http://{host}:{inner};
            proxy_bind {bind};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""


def documented() -> str:
    """Return the location that admins are told to copy."""
    text = (ROOT / "docs/operations.md").read_text()
    section = text.split("## Behind nginx", 1)[1]
    found = re.search(r"```nginx\n(.*?)```", section, re.DOTALL)
    assert found
    return found[1]


class Proxied:
    """A site with nginx before it, and one more nginx before that."""

    def __init__(self, site: Site, inner: int, outer: int) -> None:
        self.site = site
        self.inner = f"ws://{HOST}:{inner}/ws"
        self.outer = f"ws://{HOST}:{outer}/ws"


@asynccontextmanager
async def proxied(folder: Path, *trusted: str) -> AsyncIterator[Proxied]:
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        missing("there is no nginx: `make test` installs it")
    async with Site(trusted_proxies=trusted) as site:
        inner, outer = free_port(), free_port()
        location = documented().replace("127.0.0.1:8765", f"{HOST}:{site.server.port}")
        config = folder / "nginx.conf"
        config.write_text(
            CONFIG.format(
                folder=folder, host=HOST, inner=inner, outer=outer, location=location, bind=OUTER
            )
        )
        nginx = await asyncio.create_subprocess_exec(
            *(program, "-p", folder, "-c", config, "-e", folder / "error.log"),
            *("-g", "daemon off; master_process off;"),
        )
        try:
            await _listening(outer)
            yield Proxied(site, inner, outer)
        finally:
            nginx.terminate()
            await nginx.wait()


async def _listening(port: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                _, writer = await asyncio.open_connection(HOST, port)
            except ConnectionError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return


def dial(url: str, client: str = ROOM, spoofed: str = "") -> connect:
    """Dial from an address of this machine, perhaps with a header that is not ours to write."""
    headers = {"X-Forwarded-For": spoofed} if spoofed else {}
    return connect(url, local_addr=(client, 0), additional_headers=headers)


async def guess(url: str, times: int, client: str, spoofed: str = "") -> list[str]:
    """Show wrong tokens; returns the code that each was answered by."""
    codes = []
    for number in range(times):
        async with dial(url, client, spoofed) as browser:
            await browser.send(f'{{"cmd":"AUTH","TOKEN":"wrong {number}"}}')
            codes.append(packet(await said(browser))["error_code"])
    return codes


async def welcome(browser: ClientConnection) -> None:
    await browser.send(AUTH)
    assert await said(browser) == OK


async def test_a_browser_is_served_through_it(tmp_path: Path) -> None:
    async with proxied(tmp_path, HOST) as both, dial(both.inner) as browser:
        await welcome(browser)
        lease = await both.site.start("a", ADA)
        await both.site.end(lease)
        pushed = packet(await said(browser))
        both.site.server.stop()
        answers, code = await closing(browser)

    assert pushed["cmd"] == "EXERCICE_EXECUTED"
    assert (answers, code) == ([], 1001)


async def test_its_own_pages_may_dial_and_others_may_not(tmp_path: Path) -> None:
    async with proxied(tmp_path, HOST) as both:
        async with connect(both.inner, origin=Origin(f"https://{HOST}")) as browser:
            await welcome(browser)
        with pytest.raises(InvalidStatus) as caught:
            await connect(both.inner, origin=Origin("https://evil.example"))

    assert caught.value.response.status_code == 403


async def test_failures_are_counted_and_logged_by_the_clients_own_address(
    tmp_path: Path, logs: list[EventDict]
) -> None:
    async with proxied(tmp_path, HOST) as both:
        room = await guess(both.inner, 21, ROOM)
        elsewhere = await guess(both.inner, 1, ELSEWHERE)
        async with dial(both.inner, ROOM) as browser:
            await welcome(browser)

    assert room == ["401"] * 20 + ["429"]
    assert elsewhere == ["401"]
    [line] = [line for line in logs if line["event"] == "many_wrong_tokens"]
    assert line["client"] == ROOM


async def test_what_a_client_writes_into_the_header_does_not_count(
    tmp_path: Path, logs: list[EventDict]
) -> None:
    async with proxied(tmp_path, HOST) as both:
        through = await guess(both.inner, 20, ROOM, spoofed="192.0.2.66")
        direct = await guess(both.site.url, 20, ELSEWHERE, spoofed="192.0.2.66")

    assert through == direct == ["401"] * 20
    lines = [line for line in logs if line["event"] == "many_wrong_tokens"]
    assert [line["client"] for line in lines] == [ROOM, ELSEWHERE]


async def test_behind_several_proxies_the_last_address_that_is_none_of_them_counts(
    tmp_path: Path, logs: list[EventDict]
) -> None:
    async with proxied(tmp_path, HOST, OUTER) as both:
        await guess(both.outer, 20, ROOM, spoofed="192.0.2.66")

    [line] = [line for line in logs if line["event"] == "many_wrong_tokens"]
    assert line["client"] == ROOM


async def test_a_proxy_that_is_not_trusted_is_the_client_itself(
    tmp_path: Path, logs: list[EventDict]
) -> None:
    async with proxied(tmp_path, HOST) as both:
        await guess(both.outer, 20, ROOM)

    [line] = [line for line in logs if line["event"] == "many_wrong_tokens"]
    assert line["client"] == OUTER
