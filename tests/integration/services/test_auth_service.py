"""Who is behind a token, on a real database."""

import re
from datetime import timedelta

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Connection

from commserver.core.jobs import OwnerId
from commserver.dao.postgresql import Postgresql
from commserver.dao.sqlite import Sqlite
from commserver.dao.tokens import TOUCH_PERIOD
from commserver.errors import NotAuthenticated, StoreError
from commserver.services.auth_service import Identity, fingerprint, owner_of
from tests.conftest import ROOT
from tests.fakes import FakeClock
from tests.integration.services.site import Site

DAY = timedelta(days=1).total_seconds()
PERIOD = TOUCH_PERIOD.total_seconds()


@pytest.fixture
async def account(site: Site) -> int:
    return await site.admin.account("ada")


@pytest.fixture
async def token(site: Site, account: int) -> str:
    """A token that lives for a day after each use."""
    return await site.admin.new_token(account, days=1)


async def test_a_valid_token_says_whose_it_is(site: Site, account: int, token: str) -> None:
    identity = await site.auth.identify(token)

    assert identity == Identity(account)
    assert identity.owner == owner_of(account) == OwnerId(str(account))


async def test_each_of_several_tokens_is_valid(site: Site, account: int, token: str) -> None:
    other = await site.admin.new_token(account, label="phone")

    assert await site.auth.identify(token) == await site.auth.identify(other) == Identity(account)


@pytest.mark.parametrize("unknown", ["", "x", "x" * 100_000, "\0", "\ud800", "' OR 1=1 --", "é"])
async def test_an_unknown_token_is_nobodys(site: Site, token: str, unknown: str) -> None:
    with pytest.raises(NotAuthenticated):
        await site.auth.identify(unknown)


async def test_a_fingerprint_does_not_open_the_door(site: Site, token: str) -> None:
    with pytest.raises(NotAuthenticated):
        await site.auth.identify(fingerprint(token))


async def test_only_the_fingerprint_is_kept(site: Site, token: str) -> None:
    rows = await site.sql("SELECT * FROM tokens")

    assert token not in str(rows)
    assert fingerprint(token) in str(rows)


async def test_a_platform_may_write_tokens_itself_as_the_page_says(
    site: Site, account: int, clock: FakeClock, engine_name: str
) -> None:
    page = (ROOT / "docs" / "database.md").read_text()
    [statement] = re.findall(r"    (INSERT INTO tokens .*?;)\n\n", page, re.DOTALL)
    statement = statement.replace("42, 'login'", f"{account}, 'login'")
    if engine_name == "sqlite":
        moments = "'2026-01-01 00:00:00.000000', '2026-01-02 00:00:00.000000'"
        statement = re.sub(r"now\(\).*\)", f"{moments})", statement, flags=re.DOTALL)
        statement = re.sub(r"encode\(.*?'hex'\)", f"'{fingerprint('the token')}'", statement)
    clock.advance(PERIOD)

    await site.sql(statement)

    assert await site.auth.identify("the token") == Identity(account)
    assert (await site.admin.tokens())[0].life == DAY


async def test_a_token_that_is_not_used_expires(site: Site, clock: FakeClock, token: str) -> None:
    clock.advance(DAY)

    with pytest.raises(NotAuthenticated):
        await site.auth.identify(token)


async def test_a_token_that_is_used_lives_on(site: Site, clock: FakeClock, token: str) -> None:
    for _ in range(5):
        clock.advance(DAY - 1)
        await site.auth.identify(token)


async def test_a_revoked_token_is_nobodys_from_then_on(site: Site, token: str) -> None:
    await site.auth.identify(token)

    await site.admin.revoke(fingerprint(token))

    with pytest.raises(NotAuthenticated):
        await site.auth.identify(token)


async def test_revoking_one_leaves_the_others(site: Site, account: int, token: str) -> None:
    other = await site.admin.new_token(account)

    await site.admin.revoke(fingerprint(token))

    assert await site.auth.identify(other) == Identity(account)


async def test_an_expired_token_cannot_be_used_back_to_life(
    site: Site, clock: FakeClock, token: str
) -> None:
    clock.advance(DAY)
    for _ in range(2):
        with pytest.raises(NotAuthenticated):
            await site.auth.identify(token)

    [stored] = await site.admin.tokens()
    assert stored.last_used_at is None


async def test_a_use_is_written_at_most_once_in_ten_minutes(
    site: Site, clock: FakeClock, token: str
) -> None:
    written: list[float] = []

    def count(connection: Connection) -> None:
        written.append(clock.now())

    dialect = site.database._dialect
    assert isinstance(dialect, Sqlite | Postgresql)
    event.listen(dialect.writer.sync_engine, "begin", count)
    began = clock.now()
    for _ in range(26):  # 25 minutes
        await site.auth.identify(token)
        clock.advance(60.0)

    assert written == [began + PERIOD, began + 2 * PERIOD]


async def test_a_token_lives_on_from_its_last_written_use(
    site: Site, clock: FakeClock, token: str
) -> None:
    clock.advance(PERIOD)
    await site.auth.identify(token)
    [stored] = await site.admin.tokens()

    assert stored.last_used_at == clock.utc()
    assert stored.expires_at == clock.utc() + timedelta(days=1)


async def test_a_database_that_does_not_answer_is_no_wrong_token(site: Site, token: str) -> None:
    await site.database.close()

    with pytest.raises(StoreError):
        await site.auth.identify(token)


async def test_a_token_is_valid_also_when_its_use_cannot_be_written(
    site: Site, clock: FakeClock, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*arguments: object) -> None:
        raise StoreError("no space left")

    monkeypatch.setattr(site.daos.tokens, "touch", full)
    clock.advance(PERIOD)

    assert await site.auth.identify(token)
