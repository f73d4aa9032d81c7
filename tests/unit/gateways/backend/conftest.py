"""One link in memory for each test."""

from collections.abc import AsyncIterator

import pytest

from commserver.gateways.backend.link import Link
from tests.fakes import FakeClock
from tests.unit.gateways.backend.links import FedFinals, MemoryTransport, linked
from tests.unit.gateways.services import RecordingExecService


@pytest.fixture
def execs() -> RecordingExecService:
    return RecordingExecService()


@pytest.fixture
def finals() -> FedFinals:
    return FedFinals()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def wire(
    execs: RecordingExecService, finals: FedFinals, clock: FakeClock
) -> AsyncIterator[tuple[Link, MemoryTransport]]:
    async with linked(execs, finals, clock) as wire:
        yield wire


@pytest.fixture
def link(wire: tuple[Link, MemoryTransport]) -> Link:
    return wire[0]


@pytest.fixture
def said(wire: tuple[Link, MemoryTransport]) -> MemoryTransport:
    return wire[1]
