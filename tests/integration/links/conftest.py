"""What both links are watched for: no test may leave a traceback in a log."""

import logging
from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import capture_logs
from structlog.typing import EventDict

SECRET = "s3cret-Token"


@pytest.fixture(autouse=True)
def logs(caplog: pytest.LogCaptureFixture) -> Iterator[list[EventDict]]:
    """The lines we logged; a test that expects a traceback takes its line out of them."""
    with capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        yield lines
    assert [line for line in lines if "exc_info" in line] == []
    assert SECRET not in repr(lines)
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
    assert SECRET not in caplog.text
