"""latency: EXERCISE written by the backend → EXERCICE_EXECUTED in the browser, one at a time."""

import asyncio
import random
import time

from benchmarks.floors import python_process
from benchmarks.result import percentiles
from benchmarks.site import Site, facts, running

WARM_UP, PAIRS = 20, 200
SEED = 7
PAUSE = (0.1, 0.2)  # seconds between the end of one and the start of the next
PATIENCE = 60.0  # seconds for one verdict


async def measure(*, full: bool, seconds: float, database: str = "sqlite") -> dict[str, object]:
    """Return ours and the floor in turns: `PAIRS` of them if `full`, else what fits the time."""
    ours: list[float] = []
    floor: list[float] = []
    dice = random.Random(SEED)  # noqa: S311  # pauses, no secrets
    async with running(WARM_UP + PAIRS, database) as site:
        program = python_process.write_program(site.folder)
        ends = time.monotonic() + seconds
        cpu = 0.0
        for number, attempt in enumerate(site.attempts):
            if number == WARM_UP:
                ours.clear()
                floor.clear()
                cpu = site.cpu()
            if not full and time.monotonic() > ends and number > WARM_UP:
                break
            ours.append(await _once(site, attempt))
            await asyncio.sleep(dice.uniform(*PAUSE))
            floor.append(await asyncio.to_thread(python_process.run, program))
            await asyncio.sleep(dice.uniform(*PAUSE))
        cpu = site.cpu() - cpu
        isolation = await site.isolation()
    mine, least = percentiles(ours), percentiles(floor)
    return {
        "bench": "latency",
        "ours": mine["p50"],
        "floor": least["p50"],
        "ratio": round(mine["p50"] / least["p50"], 3),
        "ratio_p95": round(mine["p95"] / least["p95"], 3),
        "n": len(ours),
        "unit": "ms",
        "ours_percentiles": mine,
        "floor_percentiles": least,
        "server_cpu_ms_each": round(cpu * 1000 / len(ours), 2),
        "isolation": isolation,
        **facts(database),
    }


async def _once(site: Site, attempt: int) -> float:
    started = time.perf_counter()
    site.backend.submit(str(attempt))
    await site.browser.until(lambda: site.browser.final(attempt) is not None, PATIENCE)
    final = site.browser.final(attempt)
    if final is None or final.get("status") != "accepted":
        raise RuntimeError(f"attempt {attempt} ended with {final}")
    return site.browser.moments[-1] - started
