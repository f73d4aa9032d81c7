"""Ports at which a whole room knocks."""

import asyncio
import errno
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from commserver.gateways.listening import ACCEPTS, BACKLOG, QUIET, NoDescriptors, deepen
from tests.fakes import FakeClock, settle

MOST = int(Path("/proc/sys/net/core/somaxconn").read_text())  # that the system allows


async def test_a_whole_room_may_wait_and_few_are_let_in_at_one_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = []

    def accept(self: socket.socket) -> Any:
        tries.append(self)
        raise OSError(errno.EMFILE, "Too many open files")

    loop, clock = asyncio.get_running_loop(), FakeClock()
    loop.set_exception_handler(NoDescriptors(clock))
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, backlog=ACCEPTS)
    deepen(server.sockets)
    told = server.sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    monkeypatch.setattr(socket.socket, "accept", accept)
    with capture_logs() as logs, socket.create_connection(server.sockets[0].getsockname()):
        while not tries:
            await settle(1)
        server.close()
        await server.wait_closed()

    assert struct.unpack_from("I", told, 28)[0] == min(BACKLOG, MOST)
    assert len(tries) <= ACCEPTS
    assert [line["event"] for line in logs] == ["cannot_accept"]


async def test_it_is_said_again_after_a_minute_and_all_else_as_ever() -> None:
    loop, clock, seen = asyncio.get_running_loop(), FakeClock(), list[Any]()
    handler = NoDescriptors(clock)
    loop.default_exception_handler = seen.append  # type: ignore[method-assign,assignment]
    full = {"message": "", "socket": None, "exception": OSError(errno.ENFILE, "full")}
    other = {"message": "", "exception": ZeroDivisionError()}

    with capture_logs() as logs:
        handler(loop, full)
        clock.advance(QUIET - 1)
        handler(loop, full)
        clock.advance(1)
        handler(loop, full)
        handler(loop, other)

    assert [line["event"] for line in logs] == ["cannot_accept"] * 2
    assert seen == [other]
