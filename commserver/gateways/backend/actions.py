"""What we do when the backend tells us something."""

import asyncio
from functools import partial

import structlog

from commserver.core.dispatcher import Submitted
from commserver.core.jobs import AttemptId, Origin, Recipient
from commserver.errors import StoreError, StoreRefused
from commserver.gateways.backend.link import Turn
from commserver.gateways.backend.packets import (
    Accepted,
    Ack,
    AuthenticatedClient,
    Error,
    Exercise,
    Handshake,
    Ok,
    Sent,
)
from commserver.gateways.interpreter import ActionTable
from commserver.gateways.reconnect import BackOff
from commserver.gateways.words import attempt_id

log = structlog.get_logger(__name__)

GATEWAY = "backend"
ID_SHOWN = 40  # characters of an id that is none
STORE_PAUSES = (0.2, 5.0)  # seconds, first and longest, while the database is away
STORE_TRIES = 30  # of one EXERCISE while the database answers, but not about this attempt
MESSAGE_SHOWN = 200  # characters of a backend's text that are logged


async def on_pushed(packet: Exercise, turn: Turn) -> None:
    """Note it, to be taken in its turn; wait while too many are noted."""
    turn.link.welcomed()  # by its work, where the backend is silent about the token
    await turn.link.exercises.put(packet.kept)


async def on_exercise(packet: Exercise, turn: Turn) -> None:
    """Have the attempt run and, where the backend wants to know, say so before it has ended."""
    link = turn.link
    if packet.answered:
        turn.asked = str(packet.id)[:ID_SHOWN]
    attempt = attempt_id(packet.id)
    origin = Origin(GATEWAY, link.name, str(packet.id))
    tell = (link.recipient,) if packet.answered else ()
    turn.hold(attempt)
    try:
        run = (await _submitted(attempt, origin, tell, turn)).run
        if packet.answered:
            await link.accept(Accepted(str(attempt), run, str(link.exec.place(run))))
    finally:
        turn.release()


async def _submitted(
    attempt: AttemptId, origin: Origin, tell: tuple[Recipient, ...], turn: Turn
) -> Submitted:
    """Return its run. While the database is away nothing behind it is taken: nothing is lost.

    The frames behind it wait no longer once it has to be looked for again. One that the database
    will never take, or fails alone time after time, is given up, so that it does not stop them.
    """
    execs = turn.link.exec
    back_off = BackOff(*STORE_PAUSES)
    aside = partial(turn.stepping_aside, attempt)
    tries = 0
    while True:
        try:
            return await execs.submit(attempt, origin, tell, patient=True, meanwhile=aside)
        except StoreRefused:
            raise
        except StoreError as error:
            log.warning("exercise_waits", id=attempt, error=str(error))
            with turn.resting(attempt):
                tries += await execs.fails_alone(attempt)
                if tries >= STORE_TRIES:
                    raise StoreRefused(f"gave up on attempt {attempt}: {error}") from error
                await asyncio.sleep(back_off.pause())


async def on_ack(packet: Ack, turn: Turn) -> None:
    """Owe the backend nothing up to there any more."""
    link = turn.link
    link.welcomed()
    seq = packet.number
    turn.aside.set()  # receipts are written together
    try:
        await link.acknowledge(seq)
    except StoreError as error:
        log.warning("ack_not_stored", error=str(error))  # told again after the next HANDSHAKE


async def on_authenticated(packet: AuthenticatedClient, turn: Turn) -> None:
    """Tell whoever asked whose the token is."""
    account = packet.account
    turn.link.answer(packet.question, account)
    turn.link.welcomed()


async def on_welcome(packet: Handshake | Ok, turn: Turn) -> None:
    """Remember that the token was right."""
    turn.link.welcomed()


async def on_error(packet: Error, turn: Turn) -> None:
    """Remember that the token was wrong: the client hangs up and tries again later."""
    protocol = turn.link.protocol
    message = protocol.masked(str(packet.message))[:MESSAGE_SHOWN]
    protocol.refused(message)
    log.error("handshake_refused", message=message)


ACTIONS: ActionTable[Turn, Sent] = {  # as it is read
    Exercise: on_pushed,
    Ack: on_ack,
    AuthenticatedClient: on_authenticated,
    Handshake: on_welcome,
    Ok: on_welcome,
    Error: on_error,
}

TAKING: ActionTable[Turn, Sent] = {  # in its turn
    Exercise: on_exercise,
}
