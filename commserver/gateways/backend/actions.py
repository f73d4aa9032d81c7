"""What we do when the backend tells us something."""

import asyncio
from dataclasses import dataclass, field

import structlog

from commserver.core.jobs import AttemptId, Origin
from commserver.errors import NotFound, StoreError, StoreRefused
from commserver.gateways.backend.packets import Error, Exercise, Handshake, Ok, Packet
from commserver.gateways.backend.protocol import BackendProtocol
from commserver.gateways.interpreter import ActionTable
from commserver.gateways.reconnect import BackOff
from commserver.services.exec_service import ExecService

log = structlog.get_logger(__name__)

GATEWAY = "backend"
LARGEST_ID = 2**63 - 1  # what both databases can hold
STORE_PAUSES = (0.2, 5.0)  # seconds, first and longest, while the database is away
STORE_TRIES = 30  # of one EXERCISE while the database answers, but not about this attempt
MESSAGE_SHOWN = 200  # characters of a backend's text that are logged


@dataclass(slots=True)
class Link:
    """One connection to a backend, as its actions see it."""

    name: str
    protocol: BackendProtocol
    exec: ExecService
    unreadable: int = field(default=0)


async def on_exercise(packet: Exercise, link: Link) -> None:
    """Have the attempt run. While the database is away the link is not read: nothing is lost.

    One that the database will never take, or fails alone time after time, is given up, so that it
    does not stop all others.
    """
    link.protocol.welcomed()  # by its work, where the backend is silent about the token
    attempt = attempt_id(packet.id)
    back_off = BackOff(*STORE_PAUSES)
    tries = 0
    while True:
        try:
            await link.exec.submit(attempt, Origin(GATEWAY, link.name, str(packet.id)))
        except StoreRefused:
            raise
        except StoreError as error:
            log.warning("exercise_waits", id=attempt, error=str(error))
            tries += await link.exec.fails_alone(attempt)
            if tries >= STORE_TRIES:
                raise StoreRefused(f"gave up on attempt {attempt}: {error}") from error
            await asyncio.sleep(back_off.pause())
        else:
            return


async def on_welcome(packet: Handshake | Ok, link: Link) -> None:
    """Remember that the token was right."""
    link.protocol.welcomed()


async def on_error(packet: Error, link: Link) -> None:
    """Remember that the token was wrong: the client hangs up and tries again later."""
    message = str(packet.message)[:MESSAGE_SHOWN]
    link.protocol.refused(message)
    log.error("handshake_refused", message=message)


def attempt_id(id: str | int) -> AttemptId:
    """Return the number in an EXERCISE's `id`.

    Raises:
        NotFound: no attempt can have this id.
    """
    text = str(id).strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > LARGEST_ID:
        raise NotFound("attempt", text[:40])
    return AttemptId(int(text))


ACTIONS: ActionTable[Link, Packet] = {
    Exercise: on_exercise,
    Handshake: on_welcome,
    Ok: on_welcome,
    Error: on_error,
}
