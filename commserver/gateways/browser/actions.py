"""What we do when a browser tells us something."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from commserver.core.clock import Clock
from commserver.core.finals import account
from commserver.core.jobs import AttemptId, OwnerId
from commserver.errors import (
    NotAllowed,
    NotAuthenticated,
    NotFound,
    RateLimited,
    StoreError,
    Unanswered,
)
from commserver.gateways.browser import notices
from commserver.gateways.browser.outbox import Outbox
from commserver.gateways.browser.packets import (
    Ack,
    AnnouncementsSwitch,
    Auth,
    Cancel,
    Error,
    Ok,
    Packet,
    ProgressSwitch,
    Status,
)
from commserver.gateways.browser.protocol import BrowserProtocol
from commserver.gateways.doorkeeper import Doorkeeper, TooManyWrong
from commserver.gateways.interpreter import ActionTable
from commserver.gateways.limits import Failures
from commserver.gateways.words import attempt_id
from commserver.services.announcement_service import Announcement, AnnouncementService
from commserver.services.auth_service import Identity
from commserver.services.exec_service import ExecService
from commserver.services.finals_service import FinalsService
from commserver.services.record_service import RecordService
from commserver.services.watch_service import WatchService

log = structlog.get_logger(__name__)

MISSES = 30  # attempts that an account may ask for in vain within a minute
WINDOW = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Services:
    """Whom browsers' commands are passed on to."""

    door: Doorkeeper
    watch: WatchService
    finals: FinalsService
    execs: ExecService
    records: RecordService
    announcements: AnnouncementService
    clock: Clock


class Room:
    """What all sockets share: the services, and what is counted across sockets."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.misses = Failures(MISSES, WINDOW)  # by account


@dataclass(slots=True, eq=False)
class Connection:
    """One socket, as its actions see it.

    client: the address behind it. token: what it is looked at again by; never shown.
    """

    protocol: BrowserProtocol[Identity]
    room: Room
    outbox: Outbox
    client: str
    token: str = field(default="", repr=False)
    unsubscribe: Callable[[], None] | None = None

    def leave(self) -> None:
        """Have it told nothing more."""
        if self.protocol.identity:
            self.room.services.watch.leave(self.protocol.identity.owner, self.outbox)
        if self.unsubscribe:
            self.unsubscribe()
            self.unsubscribe = None


async def on_auth(packet: Auth, connection: Connection) -> Packet | None:
    """Bind the socket to its account; OK goes out before the catch-up."""
    identity = await connection.room.services.door.identify(packet.token, connection.client)
    first = connection.protocol.bind(identity)
    connection.token = packet.token
    connection.outbox.answer(Ok())
    if first:
        connection.room.services.watch.join(identity.owner, connection.outbox)
        connection.outbox.follow()
    return None


async def on_ack(packet: Ack, connection: Connection) -> Ok:
    """Replay nothing any more of what the user has seen."""
    recipient = account(connection.protocol.known().owner)
    await connection.room.services.finals.acknowledge(recipient, int(packet.seq))
    outbox = connection.outbox
    outbox.received = max(outbox.received, min(int(packet.seq), outbox.sent))
    return Ok()


async def on_status(packet: Status, connection: Connection) -> Packet | None:
    """Tell the place of the attempt's waiting run, that one is in hand, or how the last ended."""
    with _own(packet.id, connection) as (attempt, owner):
        records = connection.room.services.records
        await records.owned(attempt, owner)
        if _standing(attempt, connection):
            return None
        final = await records.last_final(attempt, owner)
        # Whoever was queued while that was read is newer than it.
        if _standing(attempt, connection):
            return None
        told = notices.final(final) if final else None
        if told is None:
            raise NotFound("attempt", packet.id, "this attempt was never run")
        connection.outbox.answer(Ok())
        connection.outbox.answer(told)
    return None


def _standing(attempt: AttemptId, connection: Connection) -> bool:
    """Answer with where the attempt stands; False when no run of it is unfinished."""
    runs = connection.room.services.records.unfinished(attempt)
    if not runs:
        return False
    job, place = max(runs, key=lambda run: run[1])  # one that waits before one in hand
    connection.outbox.answer(Ok())
    connection.outbox.asked(job, place)
    return True


async def on_cancel(packet: Cancel, connection: Connection) -> Packet | None:
    """End the attempt's runs; OK goes out before their finals, which are committed before it."""
    services = connection.room.services
    with _own(packet.id, connection) as (attempt, owner):
        await services.records.owned(attempt, owner)
        connection.outbox.hold()
        try:
            if not await services.execs.cancel(attempt):
                raise NotFound("attempt", packet.id, "nothing of this attempt is left to cancel")
            connection.outbox.answer(Ok())
        finally:
            connection.outbox.release()
    log.info("cancelled_by_user", attempt=attempt, owner=owner)
    return None


@contextmanager
def _own(id: str, connection: Connection) -> Iterator[tuple[AttemptId, OwnerId]]:
    """Read the id of an attempt that is to be the user's, and count how often it is not.

    Raises:
        NotAuthenticated: nobody is known yet.
        RateLimited: it was not, too often.
        NotFound: no attempt can have this id.
    """
    owner = connection.protocol.known().owner
    misses, clock = connection.room.misses, connection.room.services.clock
    if misses.over(owner, clock.now()):
        raise RateLimited("too many attempts that are not there or not yours; wait a minute")
    try:
        yield attempt_id(id), owner
    except (NotFound, NotAllowed):
        misses.count(owner, clock.now())
        raise


async def on_progress(packet: ProgressSwitch, connection: Connection) -> Ok:
    """Tell how far the user's runs are from now on, or no more of it."""
    connection.protocol.known()
    connection.outbox.switch_progress(on=packet.on == "1")
    return Ok()


async def on_announcements(packet: AnnouncementsSwitch, connection: Connection) -> Packet | None:
    """Tell what is said to everybody, first what counts now; or no more of it."""
    connection.protocol.known()
    announcements, outbox = connection.room.services.announcements, connection.outbox
    current = await announcements.current() if packet.on == "1" else None
    if connection.unsubscribe:
        connection.unsubscribe()
        connection.unsubscribe = None
    outbox.answer(Ok())
    outbox.announcement(notices.announcement(current) if current else None)
    if packet.on == "1":

        def said(announcement: Announcement) -> None:
            outbox.announcement(notices.announcement(announcement))

        connection.unsubscribe = announcements.subscribe(said)
    return None


def refuse(error: Exception, connection: Connection) -> Error:
    """Return the ERROR for it, count the failures of strangers, and bar who guesses tokens."""
    match error:
        case NotAuthenticated():
            connection.protocol.failed()
        case TooManyWrong():
            connection.protocol.bar("too many wrong tokens")
        case StoreError() | Unanswered():
            log.warning("command_failed", error=str(error))
    return notices.error(error)


ACTIONS: ActionTable[Connection, Packet] = {
    Auth: on_auth,
    Ack: on_ack,
    Status: on_status,
    Cancel: on_cancel,
    ProgressSwitch: on_progress,
    AnnouncementsSwitch: on_announcements,
}
