"""Looks through the stored files, so that damage is found before somebody needs them."""

import asyncio

import structlog

from commserver.core.clock import Clock
from commserver.errors import StoreError
from commserver.services.file_store import FOLDERS, FileStore

log = structlog.get_logger(__name__)

DAY = 86_400  # seconds
STEP = DAY / len(FOLDERS)  # seconds for each of the folders: all of them are seen once a day


class VerifyService:
    """Counts the stored files when a server starts, then compares each with its name once a day.

    Which folder is due is told by the time of day: so a server that is often started anew comes to
    all of them as well.
    """

    name = "verify"

    def __init__(self, files: FileStore, clock: Clock) -> None:
        self._files = files
        self._clock = clock

    async def run(self) -> None:
        """Count, then verify folder after folder, until cancelled."""
        counted = False
        while True:
            counted = counted or await self._count()
            moment = self._clock.utc().timestamp()
            left = STEP - moment % STEP
            await self._clock.wait(asyncio.Event(), self._clock.now() + left)
            await self.verify(FOLDERS[round((moment + left) / STEP) % len(FOLDERS)])

    async def _count(self) -> bool:
        try:
            used = await self._files.measure()
        except StoreError as error:
            log.warning("files_not_counted", error=str(error))
            return False
        log.info("files_counted", files=used.files, bytes=used.size, damaged=used.damaged)
        return True

    async def verify(self, folder: str) -> list[str]:
        """Look through one folder now; returns what was damaged and is set aside."""
        try:
            damaged = await self._files.verify(folder)
        except StoreError as error:
            log.warning("files_not_verified", folder=folder, error=str(error))
            return []
        for name in damaged:
            log.error(
                "file_damaged",
                file=name,
                advice="what was handed in is stored anew when it is handed in again, a file of an "
                "exercise when that is imported again; other damage on this disk is likely",
            )
        return damaged
