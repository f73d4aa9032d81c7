"""What needs no database: URLs, and tasks that are waited for to their end."""

import asyncio
from collections.abc import Iterator, MutableMapping

import pytest
from structlog.testing import capture_logs

from commserver.dao.database_manager import DatabaseManager, settled
from commserver.dao.patience import Patience
from commserver.errors import ConfigError, StoreError


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?uri=true",
        "mysql://h/d",
        "postgresql+psycopg2://h/d",
        "postgresql://h",
        "postgresql://h/d?option=x",
    ],
)
def test_a_url_that_cannot_be_used_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError, match=r"database\.url"):
        DatabaseManager(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:/user:secret@host",
        "postgresql://user:secret@host:port/d",
        "postgresql://user:secret@host/",
        "postgresql+psycopg2://user:secret@host/d",
        "postgresql://user:secret@host/d?option=secret",
    ],
)
def test_the_error_of_a_url_never_shows_a_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DatabaseManager(url)

    assert "secret" not in str(caught.value)


async def test_a_database_that_is_not_open_refuses() -> None:
    async def work(connection: object) -> None:
        raise AssertionError

    with pytest.raises(StoreError, match="not open"):
        await DatabaseManager("sqlite:///never/made.db").write(work)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[MutableMapping[str, object]]]:
    """What is logged while nobody really pauses and each pause takes ten seconds."""
    now = 0.0

    async def pause(seconds: float) -> None:
        nonlocal now
        now += 10.0

    monkeypatch.setattr("commserver.dao.patience.asyncio.sleep", pause)
    monkeypatch.setattr("commserver.dao.patience.time.monotonic", lambda: now)
    with capture_logs() as logs:
        yield logs


async def test_a_database_that_stays_away_is_told_every_half_minute_and_once_when_back(
    said: list[MutableMapping[str, object]],
) -> None:
    patience = Patience()

    for number in range(7):
        await patience.wait(StoreError(str(number)))
    patience.over()

    assert [(line["event"], line.get("reason"), line.get("seconds")) for line in said] == [
        ("database_is_away", "0", None),
        ("database_is_away", "3", None),
        ("database_is_away", "6", None),
        ("database_is_back", None, 70.0),
    ]


def test_a_database_that_never_was_away_is_not_told(
    said: list[MutableMapping[str, object]],
) -> None:
    Patience().over()

    assert said == []


class Gate:
    """A task that ends when it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self._go = asyncio.Event()
        self._error = error
        self.done = False
        self.task = asyncio.create_task(self._run())

    def open(self) -> None:
        self._go.set()

    async def _run(self) -> str:
        await self._go.wait()
        self.done = True
        if self._error:
            raise self._error
        return "result"


async def test_settled_gives_the_result() -> None:
    gate = Gate()
    gate.open()

    assert await settled(gate.task) == "result"


async def test_settled_gives_the_error() -> None:
    gate = Gate(StoreError("full"))
    gate.open()

    with pytest.raises(StoreError, match="full"):
        await settled(gate.task)


@pytest.mark.parametrize("cancels", [1, 3])
async def test_a_cancelled_caller_hears_only_when_all_is_over(cancels: int) -> None:
    gate = Gate()
    caller = asyncio.create_task(settled(gate.task))
    for _ in range(cancels):
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.sleep(0)
        assert not caller.done()

    gate.open()

    with pytest.raises(asyncio.CancelledError) as caught:
        await caller
    assert gate.done
    assert caught.value.__cause__ is None


async def test_a_cancelled_caller_is_told_why_it_failed() -> None:
    failed = StoreError("full")
    gate = Gate(failed)
    causes: list[BaseException | None] = []

    async def call() -> None:
        try:
            await settled(gate.task)
        except asyncio.CancelledError as cancelled:
            causes.append(cancelled.__cause__)
            raise

    caller = asyncio.create_task(call())
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)

    gate.open()

    with pytest.raises(asyncio.CancelledError):
        await caller
    assert causes == [failed]


async def test_a_time_out_around_it_is_still_a_time_out() -> None:
    gate = Gate()
    asyncio.get_running_loop().call_later(0.02, gate.open)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await settled(gate.task)

    assert gate.done


async def test_a_task_that_was_itself_cancelled_passes_that_on() -> None:
    gate = Gate()
    gate.task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await settled(gate.task)
