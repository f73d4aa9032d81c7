"""How log lines look, and what is never in them."""

import json
import logging
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import structlog
from pydantic import SecretStr

from commserver import logs
from commserver.config import Backend, Config, Database


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave nothing behind: loggers remember how they were set up."""
    yield
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, logs._Libraries)]:
        root.removeHandler(handler)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def logged(
    capsys: pytest.CaptureFixture[str], form: Literal["auto", "text", "json"] = "json"
) -> tuple[Any, Any]:
    """Return a new logger, and what gives the lines that were written to stderr alone."""
    logs.configure("INFO", form)

    def lines() -> list[str]:
        written = capsys.readouterr()
        assert written.out == ""
        return written.err.splitlines()

    return structlog.get_logger("test"), lines


def test_a_line_is_an_object_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    log, lines = logged(capsys)

    log.info("run_done", run="a", grade=20)

    [line] = lines()
    said = json.loads(line)
    assert said.pop("timestamp").endswith("Z")
    assert said == {"event": "run_done", "level": "info", "run": "a", "grade": 20}


def test_lines_that_nobody_reads_on_a_terminal_are_objects(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log, lines = logged(capsys, "auto")

    log.info("run_done")

    assert json.loads(lines()[0])["event"] == "run_done"


def test_people_are_shown_lines_without_colours_where_there_are_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log, lines = logged(capsys, "text")

    log.warning("try_broken", run="a")

    [line] = lines()
    assert "try_broken" in line
    assert "run=a" in line
    assert "\x1b" not in line


def test_what_is_below_the_level_is_not_said(capsys: pytest.CaptureFixture[str]) -> None:
    log, lines = logged(capsys)

    log.debug("detail")

    assert lines() == []


def test_what_is_bound_is_on_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    log, lines = logged(capsys)

    with structlog.contextvars.bound_contextvars(gateway="backend", peer="main"):
        log.info("link_up")
    log.info("other")

    first, second = map(json.loads, lines())
    assert (first["gateway"], first["peer"]) == ("backend", "main")
    assert "gateway" not in second


def test_a_bug_is_told_with_its_traceback_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    log, lines = logged(capsys)

    try:
        int("the bug")
    except ValueError:
        log.exception("action_failed")

    [line] = lines()
    assert "ValueError: invalid literal" in json.loads(line)["exception"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_secrets_of_the_configuration_are_masked(
    capsys: pytest.CaptureFixture[str], form: Literal["json", "text"]
) -> None:
    secret = "correct-horse"
    config = Config(
        backend=Backend(token=SecretStr(secret)), database=Database(url=f"x://u:{secret}@h/d")
    )
    log, lines = logged(capsys, form)

    log.info("configured", config=config, backend=config.backend, token=config.backend.token)

    [line] = lines()
    assert "**********" in line
    assert secret not in line


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_value_cannot_begin_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str], form: Literal["json", "text"]
) -> None:
    log, lines = logged(capsys, form)

    log.info("frame_ignored", reason="x\n2026-01-01 [error] forged\r\n\x1b[31m")

    [line] = lines()
    assert "\x1b" not in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_shows_no_local_variables(
    form: Literal["text", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    log, lines = logged(capsys, form)

    def identify(token: str) -> None:
        raise ValueError(len(token))

    try:
        identify("a-secret-token")
    except ValueError:
        log.exception("action_failed")

    said = "\n".join(lines())
    assert "ValueError" in said
    # The test's own line is quoted as source, the value of `token` must not be.
    assert said.count("a-secret-token") == said.count('identify("a-secret-token")') + said.count(
        'identify(\\"a-secret-token\\")'
    )


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_library_says_looks_like_our_own_lines(
    form: Literal["text", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    _, lines = logged(capsys, form)
    logs.configure("INFO", form)

    logging.getLogger("asyncio").warning("socket.send() raised exception.")
    logging.getLogger("asyncio").info("a detail")

    [line] = lines()
    assert "socket.send() raised exception." in line
    assert "asyncio" in line
    if form == "json":
        assert json.loads(line)["level"] == "warning"


def test_a_library_cannot_flood_the_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("commserver.logs.time.monotonic", lambda: now)
    _, lines = logged(capsys)
    library = logging.getLogger("asyncio")

    for number in range(1000):
        library.error("it failed %d times", number)
    library.error("something else")
    assert len(lines()) == logs.REPEATS + 1

    now = logs.PERIOD
    library.error("it failed %d times", 1)
    assert len(lines()) == 1
