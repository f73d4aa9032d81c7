"""sweep: one sweep right after the first start, beside a platform's 100,000 old attempts."""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import text

from benchmarks.result import percentiles, rounded
from benchmarks.site import facts
from commserver.app import built
from commserver.cluster import Cluster
from commserver.config import Backend, Browser, Config, Database, Http, Queue
from commserver.dao import migrations
from commserver.dao.database_manager import DatabaseManager
from tests.integration.dao.live import (
    ATTEMPTS,
    LivePostgresql,
    LiveSqlite,
    grant,
    made_postgresql,
    made_sqlite,
)

WARM_UP, PAIRS, PAIRS_FULL = 3, 50, 500
FLOOR = text("SELECT max(id) FROM user_exercises")  # no index: a plain scan


async def measure(*, full: bool, seconds: float, database: str = "sqlite") -> dict[str, object]:
    """Return ours and the floor in turns, on the same database."""
    ours: list[float] = []
    floor: list[float] = []
    with TemporaryDirectory(prefix="commserver-bench-") as name, _platform(database, name) as live:
        await grant(live)
        async with DatabaseManager(live.url) as manager:
            await migrations.upgrade(manager)
            config = Config(
                state_dir=Path(name) / "state",
                database=Database(url=live.url),
                backend=Backend(enabled=False),
                browser=Browser(port=0),
                http=Http(enabled=False),
                queue=Queue(sweep="new"),
            )
            async with built(config, sandboxes=lambda site, boot: []) as app:
                ends = time.monotonic() + seconds
                first = await _timed(app.sweep.sweep)
                for number in range(WARM_UP + (PAIRS_FULL if full else PAIRS)):
                    if number == WARM_UP:
                        ours.clear()
                        floor.clear()
                    if not full and time.monotonic() > ends and number > WARM_UP:
                        break
                    ours.append(await _timed(app.sweep.sweep))
                    floor.append(await _timed(lambda: manager.read(lambda c: c.scalar(FLOOR))))
                if len(app.dispatcher.board):
                    raise RuntimeError("the sweep has taken old attempts")
    mine, least = percentiles(ours), percentiles(floor)
    return {
        "bench": "sweep",
        "ours": mine["p50"],
        "floor": least["p50"],
        "ratio": round(mine["p50"] / least["p50"], 3),
        "n": len(ours),
        "unit": "ms",
        "attempts": ATTEMPTS,
        "ours_first": rounded(first * 1000),
        "ours_percentiles": mine,
        "floor_percentiles": least,
        **facts(database),
    }


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


@contextmanager
def _platform(database: str, folder: str) -> Iterator[LiveSqlite | LivePostgresql]:
    """Yield a live platform's database, in which nobody has heard of commserver."""
    if database == "sqlite":
        yield made_sqlite(Path(folder) / "platform.db")
    else:
        with Cluster() as cluster:
            cluster.create("platform")
            yield made_postgresql(cluster, "platform")
