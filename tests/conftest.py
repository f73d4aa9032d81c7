"""What every suite may ask for."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from commserver.cluster import Cluster, ClusterFailed
from commserver.engine import discovery
from commserver.engine.images import build_all
from commserver.engine.wrapper import DockerWrapper

ROOT = Path(__file__).parents[1]


def missing(what: str) -> NoReturn:
    """Skip a test that lacks a component; on CI, where none may be missing, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def docker_url() -> str:
    """The engine that this machine has, with our images as they are now."""
    found = discovery.find(ROOT / "var", os.environ, deadline=3.0)
    if found is None:
        missing("no Docker engine answers: `make test` starts one")

    async def build(url: str) -> None:
        wrapper = DockerWrapper(url)
        try:
            await build_all(wrapper, images_dir=ROOT / "images", say=print)
        finally:
            wrapper.close()

    with asyncio.Runner() as runner:
        runner.run(build(found))
    return found


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server of our own, for as long as the tests run."""
    try:
        server = Cluster(durable=False)
    except ClusterFailed as error:
        missing(str(error))
    with server:
        yield server


@pytest.fixture
def shaky(cluster: Cluster) -> Iterator[Cluster]:
    """The same, to be ended as a test likes; the next test finds it running."""
    yield cluster
    try:
        cluster.sql("SELECT 1")
    except ClusterFailed:
        cluster.start()


BUDGETS = {"unit": 60, "integration": 480, "end_to_end": 300}  # seconds a suite may take


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what each suite took beside what it may take."""
    taken = dict.fromkeys(BUDGETS, 0.0)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                suite = Path(report.nodeid).parts[1]
                taken[suite] = taken.get(suite, 0.0) + report.duration
    terminalreporter.section("budgets")
    for suite, seconds in taken.items():
        budget = BUDGETS.get(suite, 0)
        over = "  OVER" if seconds > budget else ""
        terminalreporter.write_line(f"{suite:<12} {seconds:6.1f} s of {budget} s{over}")
