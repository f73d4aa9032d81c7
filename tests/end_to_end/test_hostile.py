"""A real server, and students who hand in nothing but trouble: it stays as small as it was."""

import os
from pathlib import Path

import pytest

from commserver.core.jobs import AttemptId
from commserver.core.verdicts import Status
from commserver.dao.codes import SourceFile
from tests.end_to_end.conftest import RIGHT, MakeSite, Site
from tests.hostile.corpus import ENTRIES
from tests.hostile.entries import Entry

pytestmark = [pytest.mark.docker, pytest.mark.slow]

SHARE = 5  # one in so many: each has its verdict checked by itself in tests/hostile
ROUNDS = 3
HONEST = 5  # submissions of another student in each round
GROWTH = 6 << 20  # bytes that the server may have gained from the first round to the last
# Its pools fill up on demand, so some of these may come late; each has a descriptor or a few.
THREADS = 16 + 6 + 5  # that call the engine, that work beside the loop, that have SQLite open
DESCRIPTORS = 16 + 5 * 3  # connections to the engine, SQLite's files


async def test_a_server_stays_as_small_as_it_was(make_site: MakeSite, tmp_path: Path) -> None:
    site = await make_site()
    [browser] = await site.join("mallory")
    [honest] = await site.join("ada")
    hostile = ENTRIES[::SHARE]
    exercises = [await _import(site, entry, tmp_path / entry.name) for entry in hostile]
    used = []

    for _ in range(ROUNDS):
        attempts = [await _written(site, *both) for both in zip(hostile, exercises, strict=True)]
        right = await site.write("ada", *[RIGHT] * HONEST)
        site.push([*attempts, *right])
        finals = await site.finals(browser, attempts)
        rightly = await site.finals(honest, right)
        used.append(_used(site))

        for entry, final in zip(hostile, finals, strict=True):
            status, _ = entry.wanted("nested")
            assert (entry.name, final["cmd"], final.get("status")) == (
                entry.name,
                "EXERCICE_EXECUTED",
                str(status),
            )
        assert {final["status"] for final in rightly} == {str(Status.ACCEPTED)}

    memory, threads, descriptors = zip(*used, strict=True)
    assert memory[-1] <= memory[0] + GROWTH
    assert threads[-1] <= threads[0] + THREADS
    assert descriptors[-1] <= descriptors[0] + DESCRIPTORS
    runs = (ROUNDS - 1) * (len(hostile) + HONEST)
    assert runs > 2 * max(THREADS, DESCRIPTORS), "one that is lost in every second run would show"


async def _import(site: Site, entry: Entry, folder: Path) -> int:
    _write(folder, entry.exercise())
    async with site.trial.admin() as admin:
        return await admin.import_exercise(folder, "teacher")


def _write(folder: Path, exercise: str) -> None:
    folder.mkdir()
    (folder / "exercise.toml").write_text(exercise)


async def _written(site: Site, entry: Entry, exercise: int) -> AttemptId:
    files = [SourceFile(name, text) for name, text in entry.files.items()]
    async with site.trial.admin() as admin:
        return await admin.add_attempt(await admin.account("mallory"), exercise, files)


def _used(site: Site) -> tuple[int, int, int]:
    """Bytes of memory, threads and open descriptors of the server."""
    assert site.trial.process is not None
    home = Path(f"/proc/{site.trial.process.pid}")
    fields = (home / "status").read_text().split()
    memory = 1024 * int(fields[fields.index("VmRSS:") + 1])
    return memory, int(fields[fields.index("Threads:") + 1]), len(os.listdir(home / "fd"))
