"""What admins do leaves a row, in the transaction that does it."""

import pytest

from commserver.dao.audit import AuditEntry
from commserver.errors import NotFound, StoreError
from commserver.services.admin_service import AdminService
from commserver.services.audit_service import HTTP, AuditService
from commserver.services.auth_service import fingerprint
from tests.conftest import ROOT
from tests.fakes import FakeClock
from tests.integration.services.site import Site

WHO = "cli:ada"


@pytest.fixture
def audit(site: Site, clock: FakeClock) -> AuditService:
    return AuditService(site.database, site.daos, clock)


@pytest.fixture
def admin(site: Site, clock: FakeClock) -> AdminService:
    return AdminService(site.database, site.daos, site.files, clock, who=WHO)


async def latest(audit: AuditService) -> AuditEntry:
    [entry] = await audit.latest(1)
    return entry


async def test_what_was_done_is_read_back_newest_first(
    audit: AuditService, clock: FakeClock
) -> None:
    began = clock.utc()
    await audit.record(HTTP, "announcement.put", "announcement 1", "the exam begins")
    clock.advance(1.0)
    await audit.record(WHO, "backup")

    newest, oldest = await audit.latest(10)

    assert (newest.who, newest.action, newest.target, newest.detail) == (WHO, "backup", "", "")
    assert newest.at == clock.utc()
    assert (oldest.who, oldest.at) == ("http:admin", began)
    assert (oldest.target, oldest.detail) == ("announcement 1", "the exam begins")
    assert newest.id > oldest.id
    assert await audit.latest(1) == [newest]


async def test_a_new_token_leaves_a_row_with_its_fingerprint_and_never_itself(
    site: Site, audit: AuditService, admin: AdminService
) -> None:
    account = await admin.account("grace")

    token = await admin.new_token(account, days=3, label="grace's phone")

    entry = await latest(audit)
    assert (entry.who, entry.action, entry.target) == (WHO, "token.create", f"account {account}")
    assert entry.detail == f"fingerprint {fingerprint(token)}, 3 days"
    assert token not in str(await site.sql("SELECT * FROM commserver_audit"))


async def test_a_revoked_token_leaves_a_row(audit: AuditService, admin: AdminService) -> None:
    hashed = fingerprint(await admin.new_token(await admin.account("grace")))

    await admin.revoke(hashed)

    entry = await latest(audit)
    assert (entry.who, entry.action, entry.target) == (WHO, "token.revoke", f"token {hashed}")


async def test_what_was_not_done_leaves_no_row(
    site: Site, admin: AdminService, audit: AuditService
) -> None:
    with pytest.raises(NotFound):
        await admin.revoke("0" * 64)

    assert not await audit.latest(1)


async def test_what_cannot_be_written_down_is_not_done(
    site: Site, admin: AdminService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object, **__: object) -> None:
        raise StoreError("no space left")

    account = await admin.account("grace")
    monkeypatch.setattr(site.daos.audit, "add", full)

    with pytest.raises(StoreError):
        await admin.new_token(account)

    assert not await admin.tokens()


async def test_an_imported_exercise_leaves_a_row(audit: AuditService, admin: AdminService) -> None:
    folder = next(path.parent for path in sorted((ROOT / "examples").rglob("exercise.toml")))

    number = await admin.import_exercise(folder, "teacher")

    entry = await latest(audit)
    assert (entry.who, entry.action, entry.target) == (WHO, "exercise.import", f"exercise {number}")
    assert entry.detail


@pytest.mark.parametrize("text", ["\0", "\ud800", "é" * 100_000])
async def test_no_text_keeps_an_entry_from_being_written(audit: AuditService, text: str) -> None:
    await audit.record(WHO, "odd", text, text)

    assert (await latest(audit)).action == "odd"
