"""Profiles of the property tests: quick, or a long look with `HYPOTHESIS_PROFILE=thorough`."""

import os

import pytest
from hypothesis import settings

from commserver.core.board import Board
from tests.fakes import FakeClock, FakeLedger

settings.register_profile("quick", max_examples=60, stateful_step_count=60, deadline=None)
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
