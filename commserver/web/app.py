"""The routes of the pages and of what they ask for."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from commserver.config import Browser, Http
from commserver.core.clock import Clock
from commserver.errors import NotAllowed, NotAuthenticated, NotFound, RateLimited
from commserver.gateways.limits import Failures
from commserver.gateways.proxies import Proxies
from commserver.gateways.words import attempt_id
from commserver.services.auth_service import Identity
from commserver.services.record_service import RecordService
from commserver.web import assets, packets, policy

PAGE = "pages/student/index.html"
MISSES, WINDOW = 30, 60.0  # attempts asked for in vain by one account, within so many seconds


class Door(Protocol):
    """Looks tokens up, and keeps guessing them slow."""

    async def identify(self, token: str, client: str) -> Identity:
        """Return whose token this is; `client` is the address that it came from.

        Raises:
            NotAuthenticated: nobody's.
            RateLimited: nobody's, like too many from there.
            StoreError, Unanswered: whoever knows did not answer.
        """


def routes(
    http: Http,
    browser: Browser,
    door: Door,
    records: RecordService,
    clock: Clock,
    websocket_port: Callable[[], int],
) -> Sequence[BaseRoute]:
    """Return what the HTTP server shows to people.

    websocket_port: the real one, which is known once that server listens.

    Raises:
        ConfigError: a trusted proxy is no address.
    """
    pages = Pages(http, browser, door, records, clock, websocket_port)
    return (
        Route("/", pages.page),
        Route("/static/{path:path}", pages.static),
        Route("/api/v1/config", pages.config),
        Route("/api/v1/me", pages.me),
        Route("/api/v1/me/attempts", pages.attempts),
        Route("/api/v1/me/attempts/{id}", pages.attempt),
    )


class Pages:
    """Answers browsers; every answer says what they may do with it."""

    def __init__(
        self,
        http: Http,
        browser: Browser,
        door: Door,
        records: RecordService,
        clock: Clock,
        websocket_port: Callable[[], int],
    ) -> None:
        self._http = http
        self._browser = browser
        self._door = door
        self._records = records
        self._clock = clock
        self._proxies = Proxies(http.trusted_proxies, "http.trusted_proxies")
        self._misses = Failures(MISSES, WINDOW)  # by account
        self._websocket_port = websocket_port
        self._assets = assets.load()

    # -- files ------------------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        """Return the students' page, which may connect to our WebSocket and nowhere else."""
        host = request.headers.get("host", "")
        sources = policy.websocket_sources(self._http.websocket_url, host, self._websocket_port())
        return _file(request, self._assets[PAGE], policy.headers(sources))

    async def static(self, request: Request) -> Response:
        """Return a file of the pages.

        Raises:
            HTTPException: there is none of this name.
        """
        asset = self._assets.get(request.path_params["path"])
        if asset is None:
            raise HTTPException(404, "there is no such file")
        return _file(request, asset, policy.headers())

    # -- what pages ask for -----------------------------------------------------------------------

    async def config(self, request: Request) -> Response:
        """Return where the WebSocket is."""
        tls = "1" if self._browser.tls_cert else "0"
        return _json(
            packets.PageConfig(self._http.websocket_url, str(self._websocket_port()), tls),
        )

    async def me(self, request: Request) -> Response:
        """Return who asks."""

        async def answer(identity: Identity) -> packets.Me:
            name = await self._records.name_of(identity.account)
            return packets.Me(str(identity.account), name)

        return await self._for_user(request, answer)

    async def attempts(self, request: Request) -> Response:
        """Return the newest attempts of whoever asks."""

        async def answer(identity: Identity) -> packets.Attempts:
            found = await self._records.latest_of(identity.account)
            return packets.Attempts([packets.attempt(one) for one in found])

        return await self._for_user(request, answer)

    async def attempt(self, request: Request) -> Response:
        """Return one attempt of whoever asks, with its log."""

        async def answer(identity: Identity) -> packets.AttemptWithLog:
            if self._misses.over(identity.account, self._clock.now()):
                raise RateLimited("too many attempts that are not there or not yours")
            try:
                attempt = attempt_id(request.path_params["id"])
                found, text = await self._records.with_log(attempt, identity.owner)
            except (NotFound, NotAllowed):
                self._misses.count(identity.account, self._clock.now())
                raise
            return packets.AttemptWithLog(packets.attempt(found), text)

        return await self._for_user(request, answer)

    async def _for_user(
        self, request: Request, answer: Callable[[Identity], Awaitable[msgspec.Struct]]
    ) -> Response:
        """Answer whoever shows a right token, in bounded time.

        Raises:
            CommServerError, TimeoutError: not; the server makes an answer of it.
        """
        async with asyncio.timeout(self._http.timeout):
            identity = await self._door.identify(_token(request), self._client(request))
            return _json(await answer(identity))

    def _client(self, request: Request) -> str:
        peer = request.client.host if request.client else ""
        return self._proxies.client(peer, request.headers.getlist("x-forwarded-for"))


def _file(request: Request, asset: assets.Asset, headers: dict[str, str]) -> Response:
    # Asked for again each time, and sent again only if it has changed: a new version is seen at
    # once.
    headers |= {"ETag": asset.etag, "Cache-Control": "no-cache"}
    if asset.held(request.headers.get("if-none-match", "")):
        return Response(None, 304, headers)
    return Response(asset.body, 200, headers | {"Content-Type": asset.type})


def _json(answer: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")


def _token(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotAuthenticated("a token is needed: Authorization: Bearer …")
    return token.strip()
