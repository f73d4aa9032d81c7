"""Every endpoint of the door and of the admins, as data: routes and OpenAPI are made from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from commserver.gateways.http import actions, packets
from commserver.gateways.http.actions import Action
from commserver.services.status_service import StatusReport

API = "/api/v1"


class Access(StrEnum):
    """Whose token an endpoint asks for."""

    ANYBODY = "anybody"
    SERVER = "server"
    """The platform's: `http.token`."""
    ADMIN = "admin"
    """The admins': the file `admin.token`, or COMMSERVER_TOKEN."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path.

    request: what the body must be, None for no body. answers: what a success looks like, by
    status. errors: the statuses of refusals beside those that every endpoint has.
    keyed: whether an Idempotency-Key is looked at. query: names and meanings.
    """

    method: str
    path: str
    action: Action
    access: Access
    answers: Mapping[HTTPStatus, Any]
    request: type[packets.Packet] | None = None
    errors: tuple[HTTPStatus, ...] = ()
    keyed: bool = False
    query: Mapping[str, str] = field(default_factory=dict)


OK = HTTPStatus.OK
LIMIT = {"limit": f"How many at most, from 1 to {actions.MOST}."}

ENDPOINTS = (
    Endpoint(
        "POST",
        f"{API}/executions",
        actions.on_submit,
        Access.SERVER,
        {HTTPStatus.ACCEPTED: packets.Accepted},
        request=packets.Submission,
        errors=(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
        keyed=True,
    ),
    Endpoint(
        "GET",
        f"{API}/executions/{{run}}",
        actions.on_run,
        Access.SERVER,
        {OK: packets.Run},
        errors=(HTTPStatus.NOT_FOUND,),
    ),
    Endpoint(
        "DELETE",
        f"{API}/executions/{{run}}",
        actions.on_cancel,
        Access.SERVER,
        {OK: packets.Run},
        errors=(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
    ),
    Endpoint(
        "GET",
        f"{API}/attempts/{{id}}",
        actions.on_attempt,
        Access.SERVER,
        {OK: packets.Runs},
        errors=(HTTPStatus.NOT_FOUND,),
        query=LIMIT,
    ),
    Endpoint("GET", f"{API}/admin/status", actions.on_status, Access.ADMIN, {OK: StatusReport}),
    Endpoint(
        "GET",
        f"{API}/admin/announcement",
        actions.on_announcement,
        Access.ADMIN,
        {OK: packets.Announced},
    ),
    Endpoint(
        "PUT",
        f"{API}/admin/announcement",
        actions.on_announce,
        Access.ADMIN,
        {OK: packets.Announced},
        request=packets.Announce,
    ),
    Endpoint(
        "DELETE",
        f"{API}/admin/announcement",
        actions.on_withdraw,
        Access.ADMIN,
        {OK: packets.Announced},
    ),
    Endpoint(
        "GET",
        f"{API}/admin/audit",
        actions.on_audit,
        Access.ADMIN,
        {OK: packets.AuditRows},
        query=LIMIT,
    ),
    Endpoint("GET", "/healthz", actions.on_health, Access.ANYBODY, {OK: packets.Health}),
    Endpoint("GET", "/readyz", actions.on_ready, Access.ANYBODY, {OK: packets.Health}),
)
