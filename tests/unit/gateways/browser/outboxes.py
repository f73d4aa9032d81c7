"""Looking into what a socket would be sent."""

import asyncio

from commserver.gateways.browser.outbox import Behind, Close, Outbox
from commserver.gateways.browser.packets import ExerciceExecuted, Packet, PlaceInQueue


def following(limit: int = 10) -> Outbox:
    """Return the outbox of a socket whose user was owed nothing when it came."""
    outbox = Outbox(limit)
    outbox.follow()
    outbox.caught_up([], 0, more=False)
    return outbox


async def drained(outbox: Outbox) -> list[Packet | Behind | Close]:
    """Take all that is there now, as a socket would; nothing comes after a close or a gap."""
    taken: list[Packet | Behind | Close] = []
    while not (taken and isinstance(taken[-1], Close | Behind)):
        task = asyncio.ensure_future(outbox.next())
        await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            break
        taken.append(task.result())
    return taken


async def told(outbox: Outbox) -> list[tuple[str, str]]:
    """Take all that is there now, as pairs such as ("a", "place 2") or ("a", "accepted")."""
    return [_short(packet) for packet in await drained(outbox)]


def _short(packet: Packet | Behind | Close) -> tuple[str, str]:
    match packet:
        case PlaceInQueue():
            return packet.run, f"place {packet.place}"
        case ExerciceExecuted():
            return packet.run, packet.status
        case Close():
            return "", f"close {packet.code}"
        case Behind():
            return "", f"behind {packet.after}"
        case _:
            return "", repr(packet)
