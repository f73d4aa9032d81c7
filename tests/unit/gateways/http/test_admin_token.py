"""The admins' token is made once, kept, and nobody else's."""

import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from commserver.errors import ConfigError
from commserver.gateways.http.admin_token import admin_token


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "admin.token"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_at_the_first_start_and_kept(path: Path) -> None:
    with capture_logs() as lines:
        token = admin_token(path, {})

    assert admin_token(path, {}) == token == path.read_text().strip()
    assert mode(path) == 0o600
    assert len(token) * 6 >= 130, "random bits, six a character"
    assert token not in repr(lines)
    assert list(path.parent.iterdir()) == [path]


def test_no_two_sites_have_the_same(path: Path, tmp_path: Path) -> None:
    assert admin_token(path, {}) != admin_token(tmp_path / "other", {})


def test_the_environment_wins_and_no_file_is_made(path: Path) -> None:
    assert admin_token(path, {"COMMSERVER_TOKEN": "mine"}) == "mine"
    assert not path.exists()


def test_a_file_that_others_can_read_is_mended_and_said(path: Path) -> None:
    path.write_text("known\n")
    path.chmod(0o644)

    with capture_logs() as lines:
        assert admin_token(path, {}) == "known"

    assert mode(path) == 0o600
    assert [line["event"] for line in lines] == ["admin_token_was_open"]
    assert "known" not in repr(lines)


def test_an_empty_file_is_replaced(path: Path) -> None:
    path.write_text("\n")

    assert admin_token(path, {}) == path.read_text().strip() != ""


def test_what_a_kill_left_behind_does_no_harm(path: Path) -> None:
    path.with_name("admin.token.new").write_text("half")

    assert admin_token(path, {}) == path.read_text().strip() != "half"


@pytest.mark.parametrize("kind", ["link", "folder", "binary"])
def test_what_is_no_file_of_ours_is_refused(path: Path, kind: str) -> None:
    if kind == "link":
        path.symlink_to(path.parent / "elsewhere")
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"\xff")

    with pytest.raises(ConfigError, match=r"admin\.token"):
        admin_token(path, {})
