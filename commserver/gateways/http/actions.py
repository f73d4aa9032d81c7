"""What we do when somebody asks over HTTP: one coroutine an endpoint, no try and no except.

An action is given the call and the door, and returns what to answer; errors become answers in one
place, `notices.problem`.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

from commserver.core.jobs import Origin, RunId
from commserver.core.text import clean_text
from commserver.errors import MalformedPacket, NotFound
from commserver.gateways.http import notices, packets
from commserver.gateways.http.notices import Refused
from commserver.gateways.words import attempt_id
from commserver.services.announcement_service import AnnouncementService
from commserver.services.audit_service import HTTP, AuditService
from commserver.services.exec_service import ExecService
from commserver.services.record_service import RecordService
from commserver.services.request_service import RequestService
from commserver.services.status_service import StatusService

GATEWAY = "http"
PEER = "door"
KEY_LIMIT = 200  # characters of an Idempotency-Key
RUN_ID = re.compile(r"[0-9A-Za-z-]{1,36}")
MOST = 100  # rows of one answer


@dataclass(slots=True)
class Door:
    """What the endpoints work with.

    ready: raises a StoreError when the database does not answer.
    shut: true once no new work is taken.
    """

    execs: ExecService
    requests: RequestService
    records: RecordService
    announcements: AnnouncementService
    audit: AuditService
    status: StatusService
    ready: Callable[[], Awaitable[object]]
    shut: bool = False


class Call(NamedTuple):
    """One request: the parts of its path, its query, its key and its body."""

    path: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    key: str | None = None
    packet: Any = None


class Answer(NamedTuple):
    """What is sent back: anything that msgspec can write as JSON."""

    status: HTTPStatus
    packet: object


Action = Callable[[Call, Door], Awaitable[Answer]]


async def on_submit(call: Call, door: Door) -> Answer:
    """Have an attempt run; with a key once, however often it is asked for."""
    if door.shut:
        raise notices.unavailable("the server is about to stop; ask again when it is back")
    key = _key(call.key)
    attempt = attempt_id(call.packet.id)
    origin = Origin(GATEWAY, PEER, key or str(attempt))
    if key is None:
        run = (await door.execs.submit(attempt, origin, patient=True)).run
    else:
        run = await door.requests.submit(key, attempt, origin)
    return Answer(HTTPStatus.ACCEPTED, packets.Accepted(run, str(door.execs.place(run))))


async def on_run(call: Call, door: Door) -> Answer:
    """Show a run."""
    record = await door.records.run(run_id(call.path["run"]))
    return Answer(HTTPStatus.OK, notices.run(record))


async def on_cancel(call: Call, door: Door) -> Answer:
    """End a run before its verdict."""
    run = run_id(call.path["run"])
    won = await door.execs.cancel_run(run)
    record = await door.records.run(run)
    if not won:
        message = f"this run has ended already: {record.state}"
        raise Refused(HTTPStatus.CONFLICT, message, attempt=record.stored.job.attempt)
    return Answer(HTTPStatus.OK, notices.run(record))


async def on_attempt(call: Call, door: Door) -> Answer:
    """Show the newest runs of an attempt."""
    attempt = attempt_id(call.path["id"])
    runs = await door.records.runs_of(attempt, _limit(call.query, 20))
    return Answer(HTTPStatus.OK, packets.Runs(str(attempt), [notices.run(run) for run in runs]))


async def on_status(call: Call, door: Door) -> Answer:
    """Show how everything is."""
    return Answer(HTTPStatus.OK, await door.status.report())


async def on_announcement(call: Call, door: Door) -> Answer:
    """Show what is said to all students."""
    said = await door.announcements.current()
    return Answer(HTTPStatus.OK, notices.announced(said))


async def on_announce(call: Call, door: Door) -> Answer:
    """Say something to all students, in place of what was said before."""
    packet: packets.Announce = call.packet
    said = await door.announcements.announce(packet.text, packet.until)
    await door.audit.record(HTTP, "announcement.set", str(said.id), clean_text(said.text))
    return Answer(HTTPStatus.OK, notices.announced(said))


async def on_withdraw(call: Call, door: Door) -> Answer:
    """Take back what is said to all students."""
    if said := await door.announcements.current():
        await door.audit.record(HTTP, "announcement.withdraw", str(said.id))
        await door.announcements.withdraw()
    return Answer(HTTPStatus.OK, notices.announced(None))


async def on_audit(call: Call, door: Door) -> Answer:
    """Show what admins did."""
    entries = await door.audit.latest(_limit(call.query, 50))
    return Answer(HTTPStatus.OK, notices.audited(entries))


async def on_health(call: Call, door: Door) -> Answer:
    """Say that the process is alive."""
    return Answer(HTTPStatus.OK, packets.Health("ok"))


async def on_ready(call: Call, door: Door) -> Answer:
    """Say whether work would be taken now."""
    if door.shut:
        raise notices.unavailable("the server is about to stop")
    await door.ready()
    return Answer(HTTPStatus.OK, packets.Health("ok"))


def run_id(text: str) -> RunId:
    """Return a run's id.

    Raises:
        NotFound: no run can have this id.
    """
    if not RUN_ID.fullmatch(text):
        raise NotFound("run", clean_text(text[:40]))
    return RunId(text)


def _key(key: str | None) -> str | None:
    if key is None:
        return None
    if not 1 <= len(key) <= KEY_LIMIT or not all("!" <= character <= "~" for character in key):
        message = f"Idempotency-Key: 1 to {KEY_LIMIT} visible ASCII characters, no blank"
        raise MalformedPacket(message, "Idempotency-Key")
    return key


def _limit(query: Mapping[str, str], usual: int) -> int:
    text = query.get("limit")
    if text is None:
        return usual
    if not (text.isascii() and text.isdigit()) or len(text) > 3 or not 1 <= int(text) <= MOST:
        raise MalformedPacket(f"limit: a number from 1 to {MOST}", "limit")
    return int(text)
