"""Tokens in our own table."""

import structlog

from commserver.core.clock import Clock
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import NotAuthenticated, StoreError
from commserver.services.auth_service import Identity, fingerprint

log = structlog.get_logger(__name__)


class DatabaseVerifier:
    """Tokens are kept as sha256 with an account and a sliding life.

    Looking a hash up gives nothing away by its timing: who could choose the hash knows the token.
    """

    def __init__(self, database: DatabaseManager, daos: DaoManager, clock: Clock) -> None:
        self._database = database
        self._daos = daos
        self._clock = clock

    async def identify(self, token: str) -> Identity:
        """Return whose token this is, and prolong its life.

        Raises:
            NotAuthenticated: nobody's, expired or revoked.
            StoreError: the database did not answer.
        """
        now = self._clock.utc()
        hashed = fingerprint(token)
        found = await self._database.read(lambda c: self._daos.tokens.find(c, hashed))
        if found is None or not found.valid(now):
            raise NotAuthenticated("this token is not valid")
        if found.touch_due(now):
            try:
                await self._database.write(lambda c: self._daos.tokens.touch(c, hashed, now))
            except StoreError as error:  # whose token it is we know, and the next use comes
                log.warning("token_not_prolonged", error=str(error))
        return Identity(found.account_id)
