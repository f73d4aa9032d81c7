"""What is said on a link, to a backend that reads and to one that does not."""

import asyncio

import pytest

from commserver.errors import Unanswered
from commserver.gateways.backend import link as module
from commserver.gateways.backend.link import Link
from commserver.gateways.backend.packets import Accepted
from tests.fakes import settle
from tests.unit.gateways.backend.links import MemoryTransport

PACKET = Accepted("1", "r", "0")


async def test_packets_leave_in_the_order_of_the_calls(link: Link, said: MemoryTransport) -> None:

    for id in "123":
        assert await link.send(Accepted(id, "r", "0"))

    assert [packet["id"] for packet in said.packets] == ["1", "2", "3"]


async def test_a_backend_that_reads_nothing_is_cut_off(
    link: Link, said: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEND_TIMEOUT", 0.01)
    said.block()

    assert not await link.send(PACKET)

    assert said.aborted
    assert "read nothing" in link.cut


async def test_a_backend_that_reads_again_in_time_is_not(link: Link, said: MemoryTransport) -> None:
    said.block()
    sending = asyncio.create_task(link.send(PACKET))
    await settle()

    said.unblock()

    assert await sending
    assert not said.aborted


async def test_after_the_last_word_nothing_is_said(link: Link, said: MemoryTransport) -> None:
    link.finish()

    assert not await link.send(PACKET)
    assert said.finished
    assert said.packets == []


async def test_nothing_is_said_on_a_link_that_is_down(link: Link, said: MemoryTransport) -> None:
    await link.close(1)

    assert not await link.send(PACKET)
    link.finish()
    assert said.packets == []
    assert not said.finished


async def test_hanging_up_does_not_wait_for_a_backend_that_reads_nothing(
    link: Link, said: MemoryTransport
) -> None:
    said.block()

    await link.close(0.01)

    assert said.aborted


# -- questions ------------------------------------------------------------------------------------


async def test_a_question_is_unanswered_when_the_link_goes_down(link: Link) -> None:
    asked = asyncio.create_task(link.ask("1", "s3cret"))
    await settle()

    await link.close(1)

    with pytest.raises(Unanswered) as caught:
        await asked
    assert "s3cret" not in str(caught.value)
    with pytest.raises(Unanswered):
        await link.ask("2", "t")


async def test_a_backend_that_has_refused_us_is_asked_nothing(
    link: Link, said: MemoryTransport
) -> None:
    link.protocol.refused("who are you")

    with pytest.raises(Unanswered):
        await link.ask("1", "t")

    assert said.packets == []


async def test_a_question_that_nobody_waits_for_any_more_leaves_nothing(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUESTIONS", 1)
    asked = asyncio.create_task(link.ask("1", "t"))
    await settle()

    with pytest.raises(Unanswered):
        await link.ask("2", "t")
    asked.cancel()
    await asyncio.wait({asked})
    again = asyncio.create_task(link.ask("3", "t"))
    await settle()
    link.answer("3", 12)

    assert await again == 12


async def test_a_backend_that_leaves_too_much_unread_is_asked_nothing(
    link: Link, said: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKLOG", 10)
    said.block()
    sending = asyncio.create_task(link.send(PACKET))
    await settle()

    with pytest.raises(Unanswered):
        await link.ask("1", "t")

    said.unblock()
    await sending
