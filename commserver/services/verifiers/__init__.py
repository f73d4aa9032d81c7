"""The ways to find out whose a token is: one module each (`browser.verifier`)."""

from collections.abc import Sequence

from commserver.config import Config
from commserver.core.clock import Clock
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import ConfigError
from commserver.services.auth_service import Verifier
from commserver.services.verifiers.backend import BackendVerifier, TokenAsker
from commserver.services.verifiers.database import DatabaseVerifier
from commserver.services.verifiers.signed import SignedVerifier


def chosen(
    config: Config,
    database: DatabaseManager,
    daos: DaoManager,
    clock: Clock,
    askers: Sequence[TokenAsker],
) -> Verifier:
    """Return the configured verifier.

    Raises:
        ConfigError: it cannot work as it is configured.
    """
    match config.browser.verifier:
        case "database":
            return DatabaseVerifier(database, daos, clock)
        case "backend":
            return BackendVerifier(askers, clock, timeout=config.browser.verifier_timeout)
        case "jwt":
            return SignedVerifier(config.browser.jwt, clock)


def problems(config: Config, clock: Clock) -> Sequence[str]:
    """Return what keeps the configured verifier from working, a sentence each."""
    if config.browser.verifier == "backend" and not config.backend.each:
        return ["browser.verifier: backend, and no backend is configured to ask"]
    if config.browser.verifier == "jwt":
        try:
            SignedVerifier(config.browser.jwt, clock)
        except ConfigError as error:
            return error.problems
    return ()
