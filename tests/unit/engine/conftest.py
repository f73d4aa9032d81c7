"""Container engines that start nothing."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from tests.fakes import settle
from tests.unit.engine.fake_engine import Engine

Make = Callable[..., Engine]


@pytest.fixture
async def engine() -> AsyncIterator[Make]:
    """Makes engines, and closes them."""
    engines: list[Engine] = []

    def make(*says: Sequence[bytes], **options: Any) -> Engine:
        engines.append(Engine(*says, **options))
        return engines[-1]

    yield make
    for made in engines:
        made.close()
    await settle()
