"""The routes of the pages and of what they ask for."""

from collections.abc import Sequence

from starlette.routing import BaseRoute

from commserver.config import Browser, Http
from commserver.services.auth_service import AuthService
from commserver.services.record_service import RecordService


def routes(
    http: Http, browser: Browser, auth: AuthService, records: RecordService
) -> Sequence[BaseRoute]:
    """Return what the HTTP server shows to people."""
    return ()
