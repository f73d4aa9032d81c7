"""The webhook: tells one address of each end of a run, over HTTP, until it says that it knows."""

import asyncio
import hashlib
import hmac
from contextlib import aclosing, suppress

import httpx
import structlog

from commserver.config import Http
from commserver.core.clock import Clock
from commserver.core.finals import WEBHOOK, Final
from commserver.errors import ConfigError, StoreError
from commserver.gateways import tls
from commserver.gateways.gateway import LinkState
from commserver.gateways.http import notices, packets
from commserver.gateways.reconnect import BackOff
from commserver.services.finals_service import FinalsService

log = structlog.get_logger(__name__)

PAUSES = (1.0, 300.0)  # seconds, first and longest, until a final is sent again
LARGEST_PORT = 65_535
READ_LIMIT = 64 << 10  # bytes of an answer that are read
# What a receiver says of this one final and not of itself. After so long, and so many tries, it is
# believed: one that it cannot take must not keep all others from it for ever.
UNFIT = {
    httpx.codes.BAD_REQUEST,
    httpx.codes.CONFLICT,
    httpx.codes.REQUEST_ENTITY_TOO_LARGE,
    httpx.codes.UNPROCESSABLE_ENTITY,
}
UNFIT_TRIES = 10
UNFIT_TIME = 300.0  # seconds
UNFIT_PAUSE = 30.0  # seconds at most between two tries of such a one
NOTE_PAUSE = 0.5  # seconds between two notes of what was taken: each is a commit


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a body that is sent at `timestamp`, seconds since 1970."""
    signed = timestamp.encode() + b"." + body
    return f"sha256={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


class Webhook:
    """Posts finals in order, each until it is taken; what it owes outlives the process.

    2xx means taken. Anything else, redirects among it, is tried again after a growing pause, for as
    long as the final is owed; only what the receiver calls unfit for five minutes is let go.

    What was taken is noted twice a second at most, and before `run` returns. What a kill leaves
    unnoted is told once more.
    """

    name = "webhook"

    def __init__(self, config: Http, finals: FinalsService, clock: Clock) -> None:
        """Connect to nothing yet.

        Raises:
            ConfigError: the secret or the certificates cannot be read, or the URL is none.
        """
        try:
            self._url = httpx.URL(config.webhook_url)
            host, port = self._url.host, self._url.port or 0
        except (httpx.InvalidURL, ValueError) as error:
            raise ConfigError([f"http.webhook_url: {error}"]) from error
        if not host or port > LARGEST_PORT:
            raise ConfigError(["http.webhook_url: it names no host, or no port that there is"])
        self._secret = config.signing_secret()
        self._timeout = config.webhook_timeout
        self._trust = tls.client_context(config.webhook_ca)
        self._finals = finals
        self._clock = clock
        self._back_off = BackOff(*PAUSES)
        self._state = LinkState(True, clock.utc())
        self._taken = self._noted = 0  # sequence numbers: taken by the receiver, known to be noted
        self._news = asyncio.Event()  # something was taken
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Tell of every end, until stopped or cancelled."""
        async with (
            httpx.AsyncClient(
                verify=self._trust,
                timeout=self._timeout,
                follow_redirects=False,
                trust_env=False,
                headers={"User-Agent": "commserver"},
            ) as client,
            asyncio.TaskGroup() as tasks,
        ):
            telling = tasks.create_task(self._tell_all(client))
            noting = tasks.create_task(self._note_all())
            await self._stopping.wait()
            telling.cancel()
            noting.cancel()
        if self._taken > self._noted:
            with suppress(StoreError):  # then it is told again
                await self._finals.acknowledge(WEBHOOK, self._taken)

    @property
    def state(self) -> LinkState:
        """Whether the receiver takes what it is told, and since when."""
        return self._state

    def stop(self) -> None:
        """Let `run` return; what is not told is told after the next start."""
        self._stopping.set()

    async def _tell_all(self, client: httpx.AsyncClient) -> None:
        async with aclosing(self._finals.feed(WEBHOOK)) as feed:
            async for final in feed:
                await self._tell(client, final)
                self._taken = final.seq
                self._news.set()

    async def _tell(self, client: httpx.AsyncClient, final: Final) -> None:
        """Send a final until it is taken or let go."""
        body = packets.encode(notices.told(final))
        since, unfit = self._clock.now(), 0
        while True:
            problem, status = await self._post(client, final, body)
            if not problem:
                self._works()
                return
            unfit += status in UNFIT
            if unfit >= UNFIT_TRIES and self._clock.now() - since >= UNFIT_TIME:
                log.error("webhook_gave_up", run=final.run, seq=final.seq, problem=problem)
                self._back_off.reset()
                return
            self._fails(final, problem)
            pause = self._back_off.pause()
            if status in UNFIT:
                pause = min(pause, UNFIT_PAUSE)
            await self._clock.wait(asyncio.Event(), self._clock.now() + pause)

    async def _post(
        self, client: httpx.AsyncClient, final: Final, body: bytes
    ) -> tuple[str, int | None]:
        """Send a final once; returns why it was not taken, "" if it was, and the status."""
        timestamp = str(int(self._clock.utc().timestamp()))
        headers = {
            "Content-Type": "application/json",
            "X-Commserver-Seq": str(final.seq),
            "X-Commserver-Timestamp": timestamp,
            "X-Commserver-Signature": sign(self._secret, timestamp, body),
        }
        try:
            async with asyncio.timeout(self._timeout):
                request = client.stream("POST", self._url, content=body, headers=headers)
                async with request as response:
                    await _read(response)
        except TimeoutError:
            return f"no answer in {self._timeout:g} s", None
        except (httpx.HTTPError, ValueError) as error:  # ValueError: a host that is no name
            return f"{type(error).__name__}: {error}", None
        if response.is_success:
            self._finals.pushed(WEBHOOK, final.seq)
            return "", response.status_code
        return f"it answered {response.status_code}", response.status_code

    async def _note_all(self) -> None:
        """Note what is taken; while the database is away, for as long as that takes."""
        back_off = BackOff(*PAUSES)
        while True:
            await self._news.wait()
            self._news.clear()
            taken, pause = self._taken, NOTE_PAUSE
            try:
                await self._finals.acknowledge(WEBHOOK, taken)
            except StoreError:  # which is logged where it is written
                self._news.set()
                pause = back_off.pause()
            else:
                self._noted = taken
                back_off.reset()
            await self._clock.wait(asyncio.Event(), self._clock.now() + pause)

    def _fails(self, final: Final, problem: str) -> None:
        since = self._state.since
        if self._state.up:
            log.warning("webhook_fails", seq=final.seq, problem=problem)
            since = self._clock.utc()
        self._state = LinkState(False, since, problem)

    def _works(self) -> None:
        if not self._state.up:
            log.info("webhook_works")
            self._state = LinkState(True, self._clock.utc())
        self._back_off.reset()


async def _read(response: httpx.Response) -> None:
    """Read an answer so that its connection can be used again, if it is not too long."""
    taken = 0
    async for chunk in response.aiter_raw():
        taken += len(chunk)
        if taken > READ_LIMIT:
            return
