"""The throw-away PostgreSQL server: it comes up, survives what tests do to it, and goes away."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from commserver import cluster as module
from commserver.cluster import Cluster, ClusterFailed
from tests.conftest import ROOT, missing

HOLD = """
import sys
from commserver.cluster import Cluster

cluster = Cluster(durable=False)
cluster.start()
print(cluster.folder, cluster.sql("SELECT 1"), flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    """A server that is nobody else's."""
    try:
        server = Cluster()
    except ClusterFailed as error:
        missing(str(error))
    with server:
        yield server


def gone(folder: Path) -> bool:
    deadline = time.monotonic() + 20
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not folder.exists()


def test_it_keeps_what_it_was_told_through_every_end(own: Cluster) -> None:
    own.sql("CREATE TABLE notes (body TEXT)")
    ends: list[Callable[[], None]] = [own.halt, partial(own.halt, "immediate"), own.kill]
    for end in ends:
        own.sql("INSERT INTO notes VALUES ('a')")
        end()
        own.start()

    assert own.sql("SELECT count(*) FROM notes") == "3"


def test_figures_are_taken_with_everything_that_makes_it_durable(own: Cluster) -> None:
    assert own.sql("SHOW fsync") == own.sql("SHOW full_page_writes") == "on"


def test_a_database_is_made_from_another(own: Cluster) -> None:
    own.create("first")
    own.sql("CREATE TABLE notes (body TEXT)", "first")
    own.create("second", "first")
    own.drop("first")

    assert own.sql("SELECT count(*) FROM notes", "second") == "0"
    with pytest.raises(ClusterFailed, match="does not exist"):
        own.sql("SELECT 1", "first")


def test_nobody_from_elsewhere_can_reach_it(own: Cluster) -> None:
    assert own.sql("SHOW listen_addresses") == "127.0.0.1"
    assert own.folder.stat().st_mode & 0o077 == 0


def test_nothing_is_left_of_it(own: Cluster) -> None:
    with Cluster(durable=False) as server:
        assert server.sql("SHOW fsync") == "off"
        folder = server.folder

    assert not folder.exists()
    server.stop()


def test_it_ends_with_who_started_it_however_that_ends(own: Cluster) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        folder, answer = process.stdout.readline().split()
        process.kill()

    assert answer == "1"
    assert gone(Path(folder))


def test_a_machine_without_it_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "INSTALLED", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ClusterFailed, match="there is no PostgreSQL server"):
        Cluster()
