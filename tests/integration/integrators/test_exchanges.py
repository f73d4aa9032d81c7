"""The recorded exchanges are what is said today: each is recorded anew and compared."""

import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from commserver.services import exec_service
from tests.integration.integrators.record import EXCHANGES, FOLDER, masked, name_of


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An unknown attempt need not be waited for here, and nothing may go wrong unseen."""
    monkeypatch.setattr(exec_service, "LOOK_AGAIN", (0.0,))
    with capture_logs() as lines:
        yield
    assert [line for line in lines if "exc_info" in line] == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("exchange", EXCHANGES, ids=name_of)
async def test_what_was_recorded_is_what_is_said(
    exchange: Callable[[Path], Awaitable[list[str]]], tmp_path: Path
) -> None:
    recorded = (FOLDER / name_of(exchange)).read_text(encoding="utf-8").splitlines()

    said = await exchange(tmp_path / "site")

    assert masked(said) == masked(recorded), "python -m tests.integration.integrators.record"
    kryonet = ["RegisterTCP", "KeepAlive", "00 00 00 02 {}"]
    assert [word for word in kryonet if any(word in line for line in said)] == [
        word for word in kryonet if any(word in line for line in recorded)
    ]


def test_every_file_is_recorded() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {name_of(one) for one in EXCHANGES}
