"""The token that opens the admins' endpoints."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import structlog

from commserver.errors import ConfigError

log = structlog.get_logger(__name__)

VARIABLE = "COMMSERVER_TOKEN"
BYTES = 17  # 136 random bits
OTHERS = 0o077  # what of a file's mode is not its owner's


def admin_token(path: Path, environ: Mapping[str, str]) -> str:
    """Return the admins' token: that of the environment, else of the file, which is made if needed.

    The file is for its owner alone. Where others could read it that is mended, and said.

    Raises:
        ConfigError: the file can neither be read nor made.
    """
    if given := environ.get(VARIABLE, "").strip():
        return given
    try:
        return _kept(path) or _made(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: {error}"]) from error


def _kept(path: Path) -> str:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return ""
    with open(file, encoding="utf-8") as content:
        mode = os.fstat(file).st_mode
        if mode & OTHERS:
            os.fchmod(file, mode & ~OTHERS & 0o7777)
            say = "others could read it; remove the file and start again for a new token"
            log.warning("admin_token_was_open", path=str(path), advice=say)
        return content.read().strip()


def _made(path: Path) -> str:
    token = secrets.token_urlsafe(BYTES)
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as content:
        content.write(f"{token}\n")
    draft.replace(path)
    log.info("admin_token_made", path=str(path))
    return token
