"""What we do when a browser tells us something."""

from dataclasses import dataclass

import structlog

from commserver.core.finals import account
from commserver.errors import NotAuthenticated, StoreError
from commserver.gateways.browser import notices
from commserver.gateways.browser.outbox import Outbox
from commserver.gateways.browser.packets import Ack, Auth, Error, Ok, Packet
from commserver.gateways.browser.protocol import BrowserProtocol
from commserver.gateways.interpreter import ActionTable
from commserver.services.auth_service import AuthService, Identity
from commserver.services.finals_service import FinalsService
from commserver.services.watch_service import WatchService

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Connection:
    """One socket, as its actions see it."""

    protocol: BrowserProtocol[Identity]
    auth: AuthService
    watch: WatchService
    finals: FinalsService
    outbox: Outbox


async def on_auth(packet: Auth, connection: Connection) -> Packet | None:
    """Bind the socket to its account; OK goes out before the catch-up."""
    identity = await connection.auth.identify(packet.token)
    first = connection.protocol.bind(identity)
    connection.outbox.answer(Ok())
    if first:
        connection.watch.join(identity.owner, connection.outbox)
        connection.outbox.follow()
    return None


async def on_ack(packet: Ack, connection: Connection) -> Ok:
    """Replay nothing any more of what the user has seen."""
    recipient = account(connection.protocol.known().owner)
    await connection.finals.acknowledge(recipient, int(packet.seq))
    outbox = connection.outbox
    outbox.received = max(outbox.received, min(int(packet.seq), outbox.sent))
    return Ok()


def refuse(error: Exception, connection: Connection) -> Error:
    """Return the ERROR for it, and count the failures of strangers."""
    match error:
        case NotAuthenticated():
            connection.protocol.failed()
        case StoreError():
            log.warning("command_failed", error=str(error))
    return notices.error(error)


ACTIONS: ActionTable[Connection, Packet] = {Auth: on_auth, Ack: on_ack}
