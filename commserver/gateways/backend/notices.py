"""What becomes of errors on the backend link: it has no answers, so they are logged."""

import structlog

from commserver.errors import NotFound, ProtocolError
from commserver.gateways.backend.actions import Link
from commserver.gateways.backend.packets import Packet

log = structlog.get_logger(__name__)


def refuse(error: Exception, link: Link) -> Packet | None:
    """Log an error once per kind and link as far as the peer can cause it at will."""
    match error:
        case NotFound():
            log.warning("unknown_attempt", id=error.id)
        case ProtocolError():
            link.unreadable += 1
            if link.unreadable == 1:
                log.warning("frame_ignored", reason=str(error))
        case _:
            log.error("exercise_failed", error=repr(error))
    return None
