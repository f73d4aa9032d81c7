"""What a DatabaseManager asks of each kind of database."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]


class Claim(Protocol):
    """Being a database's only manager."""

    async def keep(self) -> None:
        """Hold the claim until cancelled.

        Raises:
            AlreadyManaged: it was lost, and another manager has it now.
        """


class Dialect(Protocol):
    """One kind of database, and the connections to one of it."""

    async def open(self) -> None:
        """Return if the database is there and can be used.

        Raises:
            ConfigError: it never can as it is.
            StoreError: it cannot now.
        """

    def stop(self) -> None:
        """Wait for nothing that depends on others coming back."""

    async def close(self) -> None:
        """Disconnect."""

    def claim(self) -> AbstractAsyncContextManager[Claim]:
        """Be this database's only manager for the length of the block."""

    async def transact(self, work: Work[T], seconds: float, *, writes: bool) -> T:
        """Run `work` as one transaction and return its result once committed.

        Raises:
            StoreError, SQLAlchemyError: nothing was written, unless it says otherwise.
        """
