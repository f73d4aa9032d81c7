"""How many connections fit."""

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from commserver import app, cli, descriptors, operations
from commserver.config import Config

CONFIG = Config.model_validate({"docker": {"slots": 4}})
WANTED = CONFIG.browser.connections + CONFIG.http.connections
NEEDED = WANTED + descriptors.OURS + descriptors.DOORS + 4 * descriptors.PER_SLOT


def connections(limit: int | None, config: Config = CONFIG) -> tuple[int, int]:
    fits = descriptors.fitted(config, limit)
    return fits.browser.connections, fits.http.connections


@pytest.mark.parametrize("limit", [None, NEEDED, NEEDED + 1])
def test_what_fits_is_left_alone(limit: int | None) -> None:
    assert descriptors.fitted(CONFIG, limit) is CONFIG
    assert descriptors.problem(CONFIG, limit) == ""


def test_both_doors_give_up_the_same_share_and_what_we_need_stays_free() -> None:
    browsers, http = connections(4096)

    assert browsers + http <= 4096 - (NEEDED - WANTED)
    assert browsers + http >= 4096 - (NEEDED - WANTED) - 2
    assert browsers / http == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("limit", [0, 1, 64, 256])
def test_a_tiny_limit_leaves_doors_open(limit: int) -> None:
    assert all(1 <= each <= max(1, limit // 2) for each in connections(limit))


def test_without_the_http_side_browsers_have_it_all() -> None:
    config = CONFIG.model_copy(update={"http": CONFIG.http.model_copy(update={"enabled": False})})

    assert connections(1024, config) == (1024 - (NEEDED - WANTED), CONFIG.http.connections)


def test_it_says_what_to_set() -> None:
    said = descriptors.problem(CONFIG, 1024)

    assert f"LimitNOFILE={NEEDED}" in said
    assert f"browser.connections is {connections(1024)[0]}" in said
    assert f"http.connections {connections(1024)[1]}" in said


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] - 1, before[1]))
    try:
        descriptors.raise_limit()

        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process have 1,024 descriptors, as far as it knows."""
    monkeypatch.setattr(descriptors, "hard_limit", lambda: 1024)
    monkeypatch.setattr(descriptors, "raise_limit", lambda: None)


@pytest.mark.usefixtures("few")
async def test_the_server_is_built_for_what_fits_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = []

    @asynccontextmanager
    async def building(config: Config, **_: object) -> AsyncIterator[None]:
        built.append(config)
        raise asyncio.CancelledError
        yield

    monkeypatch.setattr(app, "built", building)
    with capture_logs() as logs:
        await app.serve(CONFIG)

    assert built == [descriptors.fitted(CONFIG, 1024)] != [CONFIG]
    [said] = [line for line in logs if line["event"] == "few_descriptors"]
    assert (said["log_level"], said["problem"]) == ("warning", descriptors.problem(CONFIG, 1024))


@pytest.mark.usefixtures("few")
def test_check_config_says_it_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def nothing(config: Config) -> list[str]:
        return []

    monkeypatch.setattr(operations, "problems", nothing)
    monkeypatch.setattr(cli, "configured", lambda *_: CONFIG)

    cli.check_config()

    assert "LimitNOFILE=" in capsys.readouterr().err
