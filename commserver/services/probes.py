"""How each part of the server is, for its status: one probe a part."""

import asyncio
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.config import Queue
from commserver.core.clock import Clock
from commserver.core.dispatcher import Dispatcher
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.services.docker_manager import DockerManager, EngineState
from commserver.services.file_store import FileStore
from commserver.services.status_service import Item, Probe, Value, moment
from commserver.services.sweep_service import SweepService

DISK_LEAST = 1 << 30  # bytes that ought to be free on the disk of the state directory
DISK_LEAST_SHARE = 0.05  # of it
FILES_MOST = 0.9  # of files.limit that may be used before an admin is told


class LinkState(Protocol):
    """How a link to somebody else is, and `since` when; `why` it is down, "" while it is up."""

    @property
    def up(self) -> bool: ...

    @property
    def since(self) -> datetime: ...

    @property
    def why(self) -> str: ...


class Linked(Protocol):
    """Whoever keeps a link to somebody else."""

    @property
    def name(self) -> str:
        """What the other side is called in the configuration."""

    @property
    def state(self) -> LinkState:
        """How the link is."""


def database(manager: DatabaseManager, clock: Clock) -> Probe:
    """Ask the database something that costs nothing."""

    async def probe() -> Sequence[Item]:
        began = clock.now()
        kind = await manager.read(_kind)
        seconds = clock.now() - began
        values: dict[str, Value] = {"kind": kind, "seconds": round(seconds, 4)}
        return [Item("database", f"{kind}, answers in {seconds * 1000:.0f} ms", values)]

    return probe


async def _kind(connection: AsyncConnection) -> str:
    await connection.exec_driver_sql("SELECT 1")
    return {"postgresql": "PostgreSQL", "sqlite": "SQLite"}[connection.dialect.name]


def engines(manager: DockerManager, dispatcher: Dispatcher) -> Probe:
    """Look at the engines and their slots."""

    async def probe() -> Sequence[Item]:
        held = [lease.offer.engine for lease in dispatcher.board.leases()]
        return [_engine(state, held.count(state.name)) for state in manager.engines()]

    return probe


def _engine(state: EngineState, busy: int) -> Item:
    name, slots, images, why, isolation = state
    up = not why
    values: dict[str, Value] = {"up": up, "slots": slots, "busy": busy}
    values["images"] = " ".join(sorted(images))
    values["isolation"] = isolation
    if why:
        return Item(name, "down", values, f"engine {name} is down: {why}")
    says = f"up, {busy} of {slots} slots busy, images {', '.join(sorted(images)) or 'none'}"
    if isolation:
        says += f", isolation {isolation}"
    advice = "run `commserver images build`"
    return Item(name, says, values, "" if images else f"engine {name} has no images: {advice}")


def links(backends: Sequence[Linked]) -> Probe:
    """Look at the links to the backends."""

    async def probe() -> Sequence[Item]:
        return [_link(backend.name, backend.state) for backend in backends]

    return probe


def _link(name: str, state: LinkState) -> Item:
    values: dict[str, Value] = {"up": state.up, "since": state.since.isoformat(), "why": state.why}
    if state.up:
        return Item(name, f"link up since {moment(state.since)}", values)
    down = f"down since {moment(state.since)}"
    problem = f"the link to backend {name} is {down}: {state.why}"
    return Item(name, f"link {down}", values, problem)


def webhook(one: Linked | None) -> Probe:
    """Look whether the webhook's receiver takes what it is told; nothing where there is none."""

    async def probe() -> Sequence[Item]:
        return [_receiver(one.name, one.state)] if one else []

    return probe


def _receiver(name: str, state: LinkState) -> Item:
    values: dict[str, Value] = {"up": state.up, "since": state.since.isoformat(), "why": state.why}
    if state.up:
        return Item(name, f"takes finals since {moment(state.since)}", values)
    says = f"takes none since {moment(state.since)}"
    return Item(name, says, values, f"the receiver of the {name} {says}: {state.why}")


def browsers(count: Callable[[], int], most: int) -> Probe:
    """Count the browsers that are connected, of which there may be `most`."""

    async def probe() -> Sequence[Item]:
        there = count()
        full = f"{there} browsers are connected and no more may be: see browser.connections"
        problem = full if there >= most else ""
        return [Item("browsers", f"{there} connected", {"connected": there}, problem)]

    return probe


def queue(
    dispatcher: Dispatcher, manager: DatabaseManager, daos: DaoManager, clock: Clock, limit: int
) -> Probe:
    """Count what waits and what runs, and say how long the oldest has waited."""

    async def probe() -> Sequence[Item]:
        held = [lease.job.id for lease in dispatcher.board.leases()]
        waiting = dispatcher.board.waiting()
        since = None
        if waiting:
            since = await manager.read(lambda c: daos.executions.waiting_since(c, held))
        oldest = (clock.utc() - since).total_seconds() if since else 0.0
        says = f"{waiting} waiting, {len(held)} running"
        if since:
            says += f", the oldest has waited {oldest:.0f} s"
        values = {"waiting": waiting, "running": len(held), "oldest_seconds": round(oldest, 3)}
        full = f"{waiting} runs wait, and more are refused: see queue.limit"
        return [Item("runs", says, values, full if waiting >= limit else "")]

    return probe


def finals(manager: DatabaseManager, daos: DaoManager) -> Probe:
    """Count the finals that are owed."""

    async def probe() -> Sequence[Item]:
        owed = await manager.read(daos.notices.count_owed)
        return [Item("finals", f"{owed} owed", {"owed": owed})]

    return probe


def sweep(service: SweepService, config: Queue) -> Probe:
    """Say when the sweep last went through."""

    async def probe() -> Sequence[Item]:
        if config.sweep == "off":
            return [Item("sweep", "off", {"mode": "off", "last": None})]
        last = service.swept_at
        values = {"mode": config.sweep, "last": last.isoformat() if last else None}
        return [Item("sweep", f"last {moment(last)}" if last else "not yet", values)]

    return probe


def files(store: FileStore) -> Probe:
    """Say how much of the file store is used, and whether any of it is damaged."""

    async def probe() -> Sequence[Item]:
        size, count, damaged = store.used
        most = f" of {store.limit / (1 << 30):.1f}" if store.limit else ""
        used = f"{size / (1 << 30):.1f}{most} GiB"
        values: dict[str, Value] = {"bytes": size, "files": count, "damaged": damaged}
        values["limit"] = store.limit
        full = store.limit and size > FILES_MOST * store.limit
        problem = f"the file store is nearly full, {used}: see files.limit, files.keep"
        items = [Item("files", f"{count} files, {used}", values, problem if full else "")]
        if damaged:
            where = "their names are in the log, and in the folder they end in .damaged"
            problem = f"{damaged} stored files were found damaged: {where}"
            items.append(Item("damaged", f"{damaged} set aside", {"damaged": damaged}, problem))
        return items

    return probe


def disk(folder: Path) -> Probe:
    """Look how much is free on the disk of the state directory."""

    async def probe() -> Sequence[Item]:
        found = await asyncio.to_thread(os.statvfs, folder)
        free, size = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
        says = f"{free / (1 << 30):.1f} of {size / (1 << 30):.1f} GiB free at {folder}"
        least = min(DISK_LEAST, DISK_LEAST_SHARE * size)
        values: dict[str, Value] = {"free": free, "size": size, "folder": str(folder)}
        problem = "" if free >= least else f"the disk is nearly full: {says}"
        return [Item("disk", says, values, problem)]

    return probe
