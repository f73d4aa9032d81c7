"""What every suite may ask for."""

import asyncio
import gc
import os
from collections import defaultdict
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import NoReturn

import pytest
import structlog

from commserver.cluster import Cluster, ClusterFailed
from commserver.engine import discovery
from commserver.engine.images import build_all
from commserver.engine.wrapper import DockerWrapper
from tests import nursery as nurseries
from tests.databases import Maker, migrate
from tests.nursery import Nursery

ROOT = Path(__file__).parents[1]
TEMPLATE = "template_commserver"


def missing(what: str) -> NoReturn:
    """Skip a test that lacks a component; on CI, where none may be missing, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def pytest_collection_finish() -> None:
    """Have no collection of garbage look again at some 6000 tests and all that they import."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup() -> None:
    """Log as structlog does by itself, but without coloured sources: one takes it a second."""
    if not structlog.is_configured():
        *chain, _ = structlog.get_config()["processors"]
        plain = structlog.dev.plain_traceback
        end = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=plain)
        structlog.configure([*chain, end])


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


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with every table and no row."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgresql_template(cluster: Cluster) -> str:
    """The name of a PostgreSQL database with every table and no row."""
    cluster.create(TEMPLATE)
    migrate(cluster.url(TEMPLATE))
    return TEMPLATE


@pytest.fixture(scope="session")
def maker(cluster: Cluster) -> Iterator[Maker]:
    """What makes the tests' databases."""
    maker = Maker(cluster)
    yield maker
    maker.close()


@pytest.fixture
def shaky(cluster: Cluster, maker: Maker) -> Iterator[Cluster]:
    """The same, to be ended as a test likes; the next test finds it running."""
    maker.settle()
    yield cluster
    try:
        cluster.sql("SELECT 1")
    except ClusterFailed:
        cluster.start()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Starts servers in no time."""
    with nurseries.opened() as nursery:
        yield nursery


# Seconds that a suite may take, of two workers together on a slow day. They are only told.
BUDGETS = {"unit": 120, "integration": 800, "end_to_end": 400, "hostile": 500}


HEAVIEST = 12  # files that are told with what they take


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what each suite took beside what it may take, and which files take most."""
    suites: defaultdict[str, float] = defaultdict(float, dict.fromkeys(BUDGETS, 0.0))
    files: defaultdict[Path, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                path = Path(report.nodeid.partition("::")[0])
                suites[path.parts[1]] += report.duration
                files[path] += report.duration
    terminalreporter.section("budgets")
    for suite, seconds in suites.items():
        budget = BUDGETS.get(suite, 0)
        over = "  OVER" if seconds > budget else ""
        terminalreporter.write_line(f"{suite:<12} {seconds:6.1f} s of {budget} s{over}")
    for path, seconds in sorted(files.items(), key=itemgetter(1))[: -HEAVIEST - 1 : -1]:
        terminalreporter.write_line(f"  {seconds:6.1f} s  {path}")
