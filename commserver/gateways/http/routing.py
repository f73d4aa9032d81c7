"""From the table of endpoints to routes: who may come in, what the body is, what is answered."""

import asyncio
import hmac
from collections import defaultdict
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from commserver.config import Http
from commserver.core.clock import Clock
from commserver.errors import MalformedPacket, NotAuthenticated, RateLimited
from commserver.gateways.http import openapi, packets
from commserver.gateways.http.actions import Call, Door
from commserver.gateways.http.endpoints import API, ENDPOINTS, Access, Endpoint
from commserver.gateways.http.notices import Refused
from commserver.gateways.limits import Failures
from commserver.gateways.proxies import Proxies, neighbourhood

ANSWER_TIMEOUT = 30.0  # seconds for an action; whoever asked may ask again
FAILURES = 20  # wrong tokens of one address within `FAILURES_PERIOD`: more are not looked at
FAILURES_PERIOD = 60.0  # seconds
JSON = "application/json"


class Guard:
    """Lets in whoever shows the right token.

    A right one is let in whatever was tried before it from the same address: an exam room, or a
    proxy, is one address.
    """

    def __init__(self, config: Http, admin: str, clock: Clock) -> None:
        """Know the tokens; a server token that is not set opens nothing.

        Raises:
            ConfigError: `token_file` cannot be read, or a trusted proxy is no address.
        """
        self._tokens = {Access.SERVER: config.secret(), Access.ADMIN: admin}
        self._proxies = Proxies(config.trusted_proxies, "http.trusted_proxies")
        self._clock = clock
        self._failures = Failures(FAILURES, FAILURES_PERIOD)

    def admit(self, request: Request, access: Access) -> None:
        """Return when the request may be carried out.

        Raises:
            Refused: the configuration opens this door to nobody.
            NotAuthenticated: there is no token, or a wrong one.
            RateLimited: likewise, and it was too often.
        """
        if access is Access.ANYBODY:
            return
        right = self._tokens[access]
        if not right:
            raise Refused(HTTPStatus.FORBIDDEN, "this door is shut: http.token is not set")
        shown = _bearer(request)
        if shown is None:
            raise NotAuthenticated("a token is needed: Authorization: Bearer …")
        if hmac.compare_digest(shown.encode(), right.encode()):
            return
        peer = request.client.host if request.client else ""
        address = self._proxies.client(peer, request.headers.getlist("x-forwarded-for"))
        key, now = neighbourhood(address), self._clock.now()
        if self._failures.over(key, now):
            raise RateLimited("too many wrong tokens from this address; try again later")
        self._failures.count(key, now)
        raise NotAuthenticated("this token is not valid")


def routes(door: Door, guard: Guard) -> Sequence[BaseRoute]:
    """Return the routes of every endpoint, and of the document that describes them."""
    paths: dict[str, dict[str, Endpoint]] = defaultdict(dict)
    for endpoint in ENDPOINTS:
        paths[endpoint.path][endpoint.method] = endpoint
    document = packets.encode(openapi.document())

    async def described(request: Request) -> Response:
        return Response(document, media_type=JSON)

    return (
        *(_route(path, methods, door, guard) for path, methods in paths.items()),
        Route(f"{API}/openapi.json", described),
    )


def _route(path: str, methods: Mapping[str, Endpoint], door: Door, guard: Guard) -> BaseRoute:
    async def respond(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        endpoint = methods[method]
        guard.admit(request, endpoint.access)
        call = Call(
            request.path_params,
            _query(request, endpoint),
            request.headers.get("idempotency-key") if endpoint.keyed else None,
            await _packet(request, endpoint),
        )
        async with asyncio.timeout(ANSWER_TIMEOUT):
            answer = await endpoint.action(call, door)
        return Response(packets.encode(answer.packet), answer.status, media_type=JSON)

    return Route(path, respond, methods=list(methods))


async def _packet(request: Request, endpoint: Endpoint) -> packets.Packet | None:
    if endpoint.request is None:
        return None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        message = f"the body must be {JSON}, and Content-Type say so"
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message)
    return packets.decode(await request.body(), endpoint.request)


def _query(request: Request, endpoint: Endpoint) -> Mapping[str, str]:
    for name, _ in request.query_params.multi_items():
        if name not in endpoint.query or len(request.query_params.getlist(name)) > 1:
            raise MalformedPacket(f"the parameter {name[:40]!a} is unknown or there twice", name)
    return dict(request.query_params)


def _bearer(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
