"""What every suite may ask for."""

import os
from pathlib import Path

import pytest

from commserver.engine import discovery

ROOT = Path(__file__).parents[1]


def missing(what: str) -> None:
    """Skip a test that lacks a component; on CI, where none may be missing, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def docker_url() -> str:
    """The engine that this machine has; its images are built by `make test` beforehand."""
    found = discovery.find(ROOT / "var", os.environ, deadline=3.0)
    if found is None:
        missing("no Docker engine answers: `make test` starts one")
    assert found is not None
    return found
