"""What every gateway does with a frame: decode it, act on it, turn errors into its own words."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

import structlog

from commserver.errors import CommServerError

log = structlog.get_logger(__name__)

Connection = TypeVar("Connection")
Packet = TypeVar("Packet")

Action = Callable[[Any, Connection], Awaitable[Packet | None]]
ActionTable = Mapping[type, Action[Connection, Packet]]


class Interpreter(Generic[Connection, Packet]):
    """The seed's Interpretator: frame in, action called, answer out.

    decode: raises a ProtocolError for what it cannot read.
    refuse: the answer to an error, None where the protocol has none; it is also given errors that
    are bugs, which have been logged with their traceback by then.
    """

    def __init__(
        self,
        decode: Callable[[bytes], Any],
        actions: ActionTable[Connection, Packet],
        refuse: Callable[[Exception, Connection], Packet | None],
    ) -> None:
        self._decode = decode
        self._actions = actions
        self._refuse = refuse

    async def interpret(self, frame: bytes, connection: Connection) -> Packet | None:
        """Return the answer to one frame. Never raises but for cancellation."""
        return await self._answer(lambda: self._decode(frame), connection)

    async def act(self, packet: object, connection: Connection) -> Packet | None:
        """Return the answer to one packet. Never raises but for cancellation."""
        return await self._answer(lambda: packet, connection)

    async def _answer(self, decoded: Callable[[], Any], connection: Connection) -> Packet | None:
        try:
            packet = decoded()
            return await self._actions[type(packet)](packet, connection)
        except CommServerError as error:
            return self._refuse(error, connection)
        except Exception as error:  # a bug of ours: say so, stay alive
            log.exception("action_failed")
            return self._refuse(error, connection)
