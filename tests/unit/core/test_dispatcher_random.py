"""Many callers at once in an order that nobody thought of, with commits that hang and fail."""

import asyncio
from contextlib import suppress
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.core.board import Board
from commserver.core.bus import EventBus
from commserver.core.dispatcher import STORE_REST, Dispatcher
from commserver.core.events import Event, LeaseRevoked, RunEnded, RunLeased, RunQueued
from commserver.core.jobs import SWEEP, Lease, LeaseId, Origin, Priority, RunId
from commserver.core.states import State
from commserver.errors import StoreError
from tests.fakes import FakeClock, FakeLedger, broken, completed, make_job, make_offer, settle
from tests.unit.core.desk import remains

OFFERS = (
    make_offer("slot-1"),
    make_offer("slot-2"),
    make_offer("node-1", engine="away", remote=True),
    make_offer("node-2", engine="away", remote=True),
)
OUTCOMES = (completed(), broken(), broken(engine_died=True))
LEASE = 20.0  # seconds
SWEPT = Origin(SWEEP, "", "")

number = st.integers(min_value=0, max_value=11)
Deed = tuple[str, int, int]
DEEDS = {
    "submit": 3,
    "ask": 1,
    "lease": 2,
    "try_lease": 1,
    "report": 4,
    "cancel": 1,
    "stop": 2,  # cancel a caller
    "commit": 4,
    "fail": 1,
    "stranger": 1,
    "wait": 2,
    "turn": 2,
}
deeds = st.lists(
    st.tuples(
        st.sampled_from([deed for deed, times in DEEDS.items() for _ in range(times)]),
        number,
        number,
    ),
    min_size=10,
    max_size=120,
)


class Crowd:
    """Callers of one dispatcher, what they were told, and the leases they know that they hold."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.ledger = FakeLedger()
        self.board = Board()
        self.bus = EventBus()
        self.dispatcher = Dispatcher(self.board, self.ledger, self.bus, self.clock)
        self.bus.subscribe(self.hear, RunQueued, RunLeased, RunEnded, LeaseRevoked)
        self.tasks: list[asyncio.Task[None]] = []
        self.runs: list[RunId] = []
        self.held: dict[LeaseId, Lease] = {}
        self.ever: list[Lease] = []
        self.adopted: set[LeaseId] = set()  # or asked for: a caller may stop before the answer
        self.ended: list[RunId] = []
        self.strangers: set[RunId] = set()

    def hear(self, event: Event) -> None:
        match event:
            case RunQueued(job=job):
                assert job.id not in self.ended, event
            case RunLeased(lease=lease):
                assert lease.job.id not in self.ended, event
            case LeaseRevoked(lease=lease):
                self.held.pop(lease.id, None)
            case RunEnded(job=job, state=state):
                assert self.ledger.rows[job.id].state is state, event
                self.ended.append(job.id)

    # -- callers ----------------------------------------------------------------------------------

    async def submit(self, one: int, other: int) -> None:
        run = RunId(f"r{len(self.runs)}")
        self.runs.append(run)
        job = make_job(
            run,
            attempt=one % 4 or None,
            content=f"x{other % 3}",
            priority=Priority(other % 3),
            lease=LEASE if other % 2 else None,
        )
        await self.dispatcher.submit(replace(job, origin=SWEPT) if one % 3 else job)

    async def ask(self, one: int, other: int) -> None:
        if self.runs:
            run = self.runs[one % len(self.runs)]
            await self.dispatcher.ask(run, Origin("backend", "main", str(other)))

    async def lease(self, one: int, other: int) -> None:
        self.keep(await self.dispatcher.lease(OFFERS[one % 4]))

    async def try_lease(self, one: int, other: int) -> None:
        skip = {run for place, run in enumerate(self.runs) if place % 5 == other}
        for lease in await self.dispatcher.try_lease(OFFERS[one % 4], 1 + other % 3, skip):
            assert lease.job.id not in skip
            self.keep(lease)

    def keep(self, lease: Lease) -> None:
        self.held[lease.id] = lease
        self.ever.append(lease)

    async def report(self, one: int, other: int) -> None:
        if not self.ever:
            return
        lease = self.ever[-1 - one % len(self.ever)]
        match other % 7:
            case 0:
                await self.dispatcher.started(lease.id)
            case 1:
                await self.dispatcher.extend(lease.id, self.clock.now() + LEASE)
            case 2:
                await self.dispatcher.release(lease.id)
            case 3:
                self.adopted.add(lease.id)
                await self.dispatcher.adopt(lease.id, lease.offer)
            case outcome:
                await self.dispatcher.finished(lease, OUTCOMES[outcome - 4])

    async def cancel(self, one: int, other: int) -> None:
        if self.runs:
            await self.dispatcher.cancel(self.runs[one % len(self.runs)])

    async def wait(self, one: int, other: int) -> None:
        self.clock.advance((0.5, 1.0, 5.0, LEASE)[one % 4])

    # -- what the world does ----------------------------------------------------------------------

    async def call(self, what: str, one: int, other: int) -> None:
        with suppress(StoreError):
            await getattr(self, what)(one, other)

    async def do(self, what: str, one: int, other: int) -> None:
        match what:
            case "turn":
                await settle(1 + other)
            case "stop":
                running = [task for task in self.tasks if not task.done()]
                if running:
                    running[one % len(running)].cancel()
            case "commit" | "fail":
                if self.ledger.held:
                    held = self.ledger.held[one % len(self.ledger.held)]
                    held.go() if what == "commit" else held.fail()
            case "stranger":
                waiting = [row.job.id for row in self.ledger.unfinished]
                if waiting and other == 0:
                    self.strangers.add(waiting[one % len(waiting)])
                    self.ledger.change_elsewhere(waiting[one % len(waiting)])
            case _:
                self.tasks.append(asyncio.create_task(self.call(what, one, other)))

    async def go_home(self) -> None:
        """Let everything that hangs go on, and whoever waits for work stop."""
        self.ledger.resume()
        await settle(100)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for _ in range(3):
            self.clock.advance(STORE_REST)
            await settle(100)
        for task in self.tasks:
            if not task.cancelled() and (error := task.exception()):
                raise error

    async def finish_all(self) -> None:
        """Judge whatever is left, as one runner after the other would."""
        for _ in range(400):
            self.clock.advance(5.0)
            await settle()
            for lease in list(self.board.leases()):
                await self.dispatcher.finished(lease, completed())
            await self.dispatcher.try_lease(make_offer("last", engine="last"), 9)
            if not len(self.board):
                return
        raise AssertionError(f"never judged: {self.ledger.unfinished}")


async def live_through(day: list[Deed]) -> None:
    crowd = Crowd()
    crowd.ledger.hang()
    time = asyncio.create_task(crowd.dispatcher.run())
    for what, one, other in day:
        await crowd.do(what, one, other)
    await crowd.go_home()

    known = {lease.id for lease in crowd.board.leases() if lease.job.id not in crowd.strangers}
    assert known <= crowd.held.keys() | crowd.adopted, "a lease that no holder has heard of"
    for run, row in crowd.ledger.rows.items():
        if run in crowd.strangers:
            continue
        assert crowd.ended.count(run) == row.state.ended
        assert crowd.board.job(run) == (None if row.state.ended else row.job), "lost, or not let go"
        assert not crowd.board.busy(run)
        assert row.tries <= row.job.max_tries

    await crowd.finish_all()
    for run, row in crowd.ledger.rows.items():
        if run not in crowd.strangers:
            assert row.state.ended
            assert crowd.ended.count(run) == 1
            assert row.state is not State.QUEUED
    assert remains(crowd.board) == {}
    assert remains(crowd.dispatcher) == {}
    assert not time.done() or time.exception() is None
    time.cancel()
    await asyncio.gather(time, return_exceptions=True)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@given(deeds)
@settings(max_examples=5 * settings().max_examples)
def test_whatever_the_order_every_run_ends_once_and_no_lease_is_lost(day: list[Deed]) -> None:
    asyncio.run(live_through(day))
