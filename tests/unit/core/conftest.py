"""Profiles of the property tests: quick, or a long look with `HYPOTHESIS_PROFILE=thorough`."""

import os

import pytest
from hypothesis import settings

from commserver.core.board import Board
from tests.fakes import FakeClock, FakeLedger
from tests.unit.core.desk import Desk

ON_CI = os.environ.get("CI") == "true"  # where the same commit must get the same answer

settings.register_profile(
    "quick", max_examples=60, stateful_step_count=60, deadline=None, derandomize=ON_CI
)
settings.register_profile("thorough", max_examples=2000, stateful_step_count=100, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger()


@pytest.fixture
def desk(board: Board, ledger: FakeLedger) -> Desk:
    return Desk(board, ledger)
