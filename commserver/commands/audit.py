"""`commserver audit`: what admins did."""

from collections.abc import Sequence
from dataclasses import asdict

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commserver.config import Config
from commserver.dao.audit import AuditEntry
from commserver.operations import auditing


async def run(config: Config, limit: int, out: Console, *, as_json: bool) -> None:
    """Print the newest `limit` entries, the newest first.

    Raises:
        ConfigError, StoreError: the database cannot be read.
    """
    async with auditing(config) as audit:
        entries = await audit.latest(limit)
    if as_json:
        out.print_json(msgspec.json.encode([asdict(entry) for entry in entries]).decode())
    else:
        show(entries, out)


def show(entries: Sequence[AuditEntry], out: Console) -> None:
    """Print entries in a table."""
    table = Table("when (UTC)", "who", "action", "target", "detail")
    for entry in entries:
        told = (entry.who, entry.action, entry.target, entry.detail)
        table.add_row(f"{entry.at:%F %T}", *map(Text, told))
    out.print(table)
