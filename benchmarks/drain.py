"""drain: many queued at once, first EXERCISE frame → last final; executions a second."""

import asyncio
import time
from collections.abc import Sequence

from benchmarks.floors import python_process
from benchmarks.result import rounded
from benchmarks.site import facts, running
from commserver.trial import Packet

WARM_UP = 2
QUEUED, QUEUED_FULL = 100, 200
PATIENCE = 600.0  # seconds for all of them


async def measure(*, full: bool, seconds: float, database: str = "sqlite") -> dict[str, object]:
    """Return ours beside the same program started bare, as many in parallel as there are slots.

    Half of the floor is measured before ours and half after it.
    """
    count = QUEUED_FULL if full else QUEUED
    async with running(WARM_UP + count, database) as site:
        program = python_process.write_program(site.folder)
        warm, queued = site.attempts[:WARM_UP], site.attempts[WARM_UP:]
        for attempt in warm:
            site.backend.submit(str(attempt))
        await site.browser.until(lambda: all(map(site.browser.final, warm)), PATIENCE)
        half = count // 2
        floor = await asyncio.to_thread(python_process.run_many, program, half, site.slots)
        cpu = site.cpu()
        started = time.perf_counter()
        for attempt in queued:
            site.backend.submit(str(attempt))
        await site.browser.until(
            lambda: _finals(site.browser.packets) == len(site.attempts), PATIENCE
        )
        ours = site.browser.moments[-1] - started
        cpu = site.cpu() - cpu
        floor += await asyncio.to_thread(python_process.run_many, program, count - half, site.slots)
        wrong = [
            one for one in queued if (site.browser.final(one) or {}).get("status") != "accepted"
        ]
        if wrong:
            raise RuntimeError(f"not accepted: {wrong}")
        isolation = await site.isolation()
    return {
        "bench": "drain",
        "ours": rounded(count / ours),
        "floor": rounded(count / floor),
        "ratio": round(floor / ours, 3),
        "n": count,
        "unit": "1/s",
        "slots": site.slots,
        "server_cpu_ms_each": round(cpu * 1000 / count, 2),
        "isolation": isolation,
        **facts(database),
    }


def _finals(packets: Sequence[Packet]) -> int:
    return sum(packet["cmd"] == "EXERCICE_EXECUTED" for packet in packets)
