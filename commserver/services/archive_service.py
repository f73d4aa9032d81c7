"""A whole site in one file, and back, on this host or another, in either kind of database."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.clock import Clock
from commserver.core.jobs import ContentHash
from commserver.dao import migrations, whole_tables
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.scripts import ScriptDAO
from commserver.dao.tables import scripts, site
from commserver.errors import NotFound, StoreError, StoreRefused
from commserver.services import exercise_files
from commserver.services.archive import (
    CONTENTS,
    FORMAT,
    Archive,
    Content,
    Manifest,
    MemberWriter,
    Writer,
    written,
)
from commserver.services.file_store import FileStore

log = structlog.get_logger(__name__)

DEADLINE = 3600.0  # seconds for a whole site

OURS, PLATFORM = "commserver", "platform"  # the two series of migrations
RECORDS = {
    table.name: whole_tables.record_type(table)
    for table in (*whole_tables.OURS, *whole_tables.PLATFORMS)
}


@dataclass(frozen=True, slots=True)
class Summary:
    """What is in an archive, in numbers; large files of exercises are among the contents.

    platform: whether the platform's tables are in it. missing: contents of runs that have not
    ended which are not, since they were lost before. site: the id of the site that it is of, "" if
    that has never served.
    """

    runs: int
    contents: int
    missing: int
    platform: bool
    site: str


def opened(path: Path) -> Archive:
    """Return an archive, looked through and found whole.

    Raises:
        StoreError: it cannot be restored from; it says why.
    """
    return Archive(path, RECORDS)


class ArchiveService:
    """Writes a site into an archive, while a server may be running, and restores one."""

    def __init__(self, database: DatabaseManager, files: FileStore, clock: Clock) -> None:
        self._database = database
        self._files = files
        self._clock = clock

    async def backup(self, path: Path, *, force: bool = False) -> Summary:
        """Write everything of one moment into a new file that only its owner may read.

        The platform's tables are in it when they are ours to keep; a live platform's never.

        Raises:
            StoreError: it could not be done; there is no file then, or the one that was there.
        """
        revisions = await self._revisions()
        with written(path, force=force) as archive:
            manifest = await self._database.read(
                lambda connection: self._write(connection, archive, revisions), deadline=DEADLINE
            )
            archive.finish(manifest)
        return _summary(manifest)

    async def restore(self, archive: Archive) -> Summary:
        """Put everything of an archive into a database that has nothing of ours yet.

        It is migrated first where need be. Contents come before the rows that name them, the rows
        all at once. The site's id stays behind, a server that starts makes another: whoever has
        the same sweeps the other's containers away.

        Raises:
            AlreadyManaged: a server is running on this database.
            StoreError: it could not be done; no row was written.
        """
        manifest = archive.manifest
        tables = _tables(manifest)
        async with self._database.claim():
            await self._database.read(lambda c: _empty(c, tables))
        await migrations.upgrade(self._database, with_platform=PLATFORM in manifest.revisions)
        async with self._database.claim():
            new: list[ContentHash] = []

            async def work(connection: AsyncConnection) -> None:
                await _empty(connection, tables)
                for table in tables:
                    if table is site:
                        continue
                    for some in archive.rows(table.name):
                        await whole_tables.fill(connection, table, some)
                    await whole_tables.number_on(connection, table)

            try:
                async for name in self._stored(archive):
                    new.append(name)
                await self._database.write(work, deadline=DEADLINE)
            except StoreRefused:
                # Certainly not written; after any other error they may be needed.
                for name in new:
                    await self._files.remove(name)
                raise
        return _summary(manifest)

    async def _revisions(self) -> dict[str, str]:
        """Return the revision of each series whose tables are ours to keep."""
        found: dict[str, str] = {}
        if ours := await migrations.current(self._database):
            found[OURS] = ours
        platform = await migrations.current(self._database, migrations.PLATFORM)
        if platform is not None and platform == migrations.latest(migrations.PLATFORM):
            found[PLATFORM] = platform
        return found

    async def _write(
        self, connection: AsyncConnection, archive: Writer, revisions: dict[str, str]
    ) -> Manifest:
        """Write what this transaction sees, a little of it in memory at a time."""
        archive.begin()
        platforms = whole_tables.PLATFORMS if PLATFORM in revisions else ()
        for table in (*platforms, *whole_tables.OURS):
            with archive.member(table.name) as member:
                async for some in whole_tables.rows(connection, table):
                    member.write(some)
        missing = 0
        referred: set[str] = set()
        with archive.member(CONTENTS) as member:
            async for name, unfinished in whole_tables.contents(connection):
                try:
                    data = await self._files.get(ContentHash(name))
                except (NotFound, StoreError):
                    # One of a run that has ended may be kept no longer, or never was.
                    if unfinished:
                        log.exception("content_missing", content=name)
                        missing += 1
                else:
                    member.write([Content(name, data)])
                    referred.update(exercise_files.of_content(data) or ())
            if await connection.run_sync(lambda c: sa.inspect(c).has_table(scripts.name)):
                referred |= await exercise_files.of_exercises(connection, ScriptDAO())
            for name in sorted(referred):
                await self._write_file(member, name)
        return Manifest(
            format=FORMAT,
            made_at=self._clock.utc(),
            engine=connection.dialect.name,
            site=await whole_tables.site_id(connection),
            revisions=revisions,
            members=archive.members,
            missing=missing,
        )

    async def _write_file(self, member: MemberWriter, name: str) -> None:
        """Write a large file of an exercise, if it is there: that is its teacher's to know."""
        try:
            member.write([Content(name, await self._files.get(ContentHash(name)))])
        except (NotFound, StoreError) as error:
            log.warning("exercise_file_missing", file=name, error=str(error))

    async def _stored(self, archive: Archive) -> AsyncIterator[ContentHash]:
        """Store an archive's contents; yields those that were not there before."""
        for content in archive.contents():
            name = ContentHash(content.name)
            if not await self._files.has(name):
                yield name
            await self._files.put(content.data)


_SERIES = {OURS: migrations.COMMSERVER, PLATFORM: migrations.PLATFORM}


def _summary(manifest: Manifest) -> Summary:
    members = manifest.members
    return Summary(
        runs=members["executions"].rows,
        contents=members[CONTENTS].rows,
        missing=manifest.missing,
        platform=PLATFORM in manifest.revisions,
        site=manifest.site,
    )


def _tables(manifest: Manifest) -> Sequence[sa.Table]:
    """Return the tables that an archive fills, those that others refer to first.

    Raises:
        StoreRefused: they are not those of this version.
    """
    latest = {name: migrations.latest(series) for name, series in _SERIES.items()}
    for name in {OURS, *manifest.revisions}:
        revision = manifest.revisions.get(name)
        if revision != latest.get(name) or revision is None:
            raise StoreRefused(
                f"the archive has the tables of {name} at revision {revision}, this version of "
                f"commserver has {latest.get(name)}: restore it with the version that made it"
            )
    platforms = whole_tables.PLATFORMS if PLATFORM in manifest.revisions else ()
    tables = (*platforms, *whole_tables.OURS)
    if set(manifest.members) != {CONTENTS, *(table.name for table in tables)}:
        raise StoreRefused("the archive has not the tables of a site")
    return tables


async def _empty(connection: AsyncConnection, tables: Sequence[sa.Table]) -> None:
    """Refuse a database that has something where an archive's rows would go."""
    if filled := await whole_tables.filled(connection, tables):
        raise StoreRefused(
            f"this database is in use, it has rows in {', '.join(filled)}: "
            "an archive is restored into a new one"
        )
