"""Whose a user's token is, asked over the link."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.typing import EventDict

from commserver.errors import Unanswered
from commserver.gateways.backend import client as module
from commserver.gateways.backend.client import Client
from tests.fakes import settle
from tests.integration.links.conftest import SECRET
from tests.integration.links.peers import PATIENCE, Link, ScriptedBackend, dialling, quick
from tests.unit.gateways.services import RecordingExecService

HANDSHAKE = b'{"cmd":"HANDSHAKE","TOKEN":"s3cret-Token"}\n'
USERS = "users s3cret-Token"  # which no line of a log may show


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAIN", 0.05)


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedBackend]:
    async with ScriptedBackend() as backend:
        yield backend


async def shaken(peer: ScriptedBackend) -> Link:
    link = await peer.link()
    assert await link.line() == HANDSHAKE
    return link


def answer(number: str | int, client: str | int) -> bytes:
    return b'{"cmd":"AUTHENTICATED_CLIENT","authentication_id":%s,"client_id":%s}\n' % (
        f'"{number}"'.encode() if isinstance(number, str) else str(number).encode(),
        f'"{client}"'.encode() if isinstance(client, str) else str(client).encode(),
    )


def asking(client: Client, token: str = USERS) -> asyncio.Task[int | None]:
    return asyncio.create_task(client.authenticate(token))


@pytest.mark.parametrize(
    ("said", "account"), [("12", 12), (12, 12), ("0", 0), ("-1", None), (-1, None)]
)
async def test_a_silent_backend_says_whose_a_token_is(
    said: str | int, account: int | None, peer: ScriptedBackend
) -> None:
    async with dialling(quick(peer.port)) as client:
        link = await shaken(peer)
        asked = asking(client)
        packet = await link.packet()
        assert packet == {
            "cmd": "AUTHENTICATE_CLIENT",
            "authentication_id": packet["authentication_id"],
            "TOKEN": USERS,
        }
        await link.say(answer(packet["authentication_id"], said))

        assert await asked == account


async def test_answers_may_come_in_any_order_and_as_integers(peer: ScriptedBackend) -> None:
    async with dialling(quick(peer.port)) as client:
        link = await shaken(peer)
        asked = [asking(client, f"t{number}") for number in range(20)]
        packets = [await link.packet() for _ in asked]
        for packet in reversed(packets):
            number = int(packet["authentication_id"])
            await link.say(answer(number, packet["TOKEN"].removeprefix("t")))

        assert await asyncio.gather(*asked) == list(range(20))


async def test_without_a_link_nobody_answers(peer: ScriptedBackend) -> None:
    peer.hush()

    async with dialling(quick(peer.port)) as client:
        with pytest.raises(Unanswered) as caught:
            await client.authenticate(USERS)

    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("end", [Link.finish, Link.close, Link.reset])
async def test_a_link_that_goes_down_answers_nobody(peer: ScriptedBackend, end: object) -> None:
    async with dialling(quick(peer.port)) as client:
        link = await shaken(peer)
        asked = asking(client)
        await link.packet()
        assert callable(end)
        end(link)

        with pytest.raises(Unanswered) as caught:
            await asked
    assert SECRET not in str(caught.value)


async def test_nobody_waits_for_an_answer_while_what_the_backend_sent_is_still_looked_for(
    peer: ScriptedBackend,
) -> None:
    execs = RecordingExecService()
    execs.lose(1)

    async with dialling(quick(peer.port), execs) as client:
        link = await shaken(peer)
        await link.say(b'{"cmd":"EXERCISE","id":"1"}\n')
        await execs.until_looking(1)
        asked = asking(client)
        await link.packet()
        link.finish()

        with pytest.raises(Unanswered):
            async with asyncio.timeout(PATIENCE):
                await asked
        execs.find(1)


async def test_a_backend_that_refuses_us_is_asked_nothing_more(
    peer: ScriptedBackend, logs: list[EventDict]
) -> None:
    async with dialling(quick(peer.port)) as client:
        link = await shaken(peer)
        asked = asking(client)
        await link.packet()
        await link.say(b'{"cmd":"ERROR","message":"who is s3cret-Token?"}\n')

        with pytest.raises(Unanswered):
            await asked
    assert [line["message"] for line in logs if line["event"] == "handshake_refused"] == [
        "who is ***?"
    ]


async def test_an_answer_counts_only_on_its_own_link(
    peer: ScriptedBackend, logs: list[EventDict]
) -> None:
    async with (
        ScriptedBackend() as other,
        dialling(quick(peer.port)) as client,
        dialling(quick(other.port)),
    ):
        link, foreign = await shaken(peer), await shaken(other)
        asked = asking(client)
        number = (await link.packet())["authentication_id"]
        await foreign.say(answer(number, 99), answer(number, 99), answer("x", 99))
        await settle(100)
        await link.say(answer("999", 98), answer(number, "12"))

        assert await asked == 12
    assert [line["event"] for line in logs].count("frame_ignored") == 2  # once a link


async def test_an_answer_that_comes_on_the_next_link_is_nobodys(peer: ScriptedBackend) -> None:
    async with dialling(quick(peer.port)) as client:
        link = await shaken(peer)
        lost = asking(client)
        old = (await link.packet())["authentication_id"]
        link.reset()
        with pytest.raises(Unanswered):
            await lost
        link = await shaken(peer)
        await link.say(HANDSHAKE)
        asked = asking(client)
        new = (await link.packet())["authentication_id"]
        await link.say(answer(old, 99), answer(new, 12))

        assert await asked == 12


async def test_who_stops_waiting_leaves_nothing_behind(peer: ScriptedBackend) -> None:
    async with dialling(quick(peer.port)) as client:
        link = await shaken(peer)
        asked = asking(client)
        number = (await link.packet())["authentication_id"]
        asked.cancel()
        await asyncio.wait({asked})
        await link.say(answer(number, 99))
        again = asking(client)
        await link.say(answer((await link.packet())["authentication_id"], 12))

        assert await again == 12


async def test_more_than_a_thousand_questions_are_not_asked_at_once(peer: ScriptedBackend) -> None:
    async with dialling(quick(peer.port)) as client:
        link = await shaken(peer)
        asked = [asking(client, f"t{number}") for number in range(1000)]
        packets = [await link.packet() for _ in asked]
        with pytest.raises(Unanswered):
            await client.authenticate("one more")
        await link.say(b"".join(answer(packet["authentication_id"], 1) for packet in packets))

        async with asyncio.timeout(PATIENCE):
            assert await asyncio.gather(*asked) == [1] * 1000


async def test_a_token_with_half_a_character_is_nobodys(peer: ScriptedBackend) -> None:
    async with dialling(quick(peer.port)) as client:
        await shaken(peer)
        await settle(100)

        assert await client.authenticate("\ud800") is None
