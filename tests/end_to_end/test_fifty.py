"""An exam room: many students, two tabs each, through real TCP, Docker and WebSockets."""

import pytest

from commserver.core.jobs import AttemptId
from commserver.trial import Packet
from tests.end_to_end.conftest import RIGHT, MakeSite

pytestmark = [pytest.mark.docker, pytest.mark.slow]

USERS, ATTEMPTS = 20, 50
SOURCES = {  # what is handed in, and what it must get
    RIGHT: ("accepted", "20"),
    "print(41)": ("wrong_answer", "0"),
    "raise SystemExit(7)": ("runtime_error", "0"),
}


async def test_fifty_attempts_of_twenty_users_end_once_each_in_both_tabs(
    make_site: MakeSite,
) -> None:
    site = await make_site()
    names = [f"student-{number}" for number in range(USERS)]
    tabs = {name: await site.join(name, tabs=2) for name in names}
    sources = list(SOURCES)
    attempts: dict[AttemptId, tuple[str, str]] = {}
    for number in range(ATTEMPTS):
        name, source = names[number % USERS], sources[number % len(sources)]
        [attempt] = await site.write(name, source)
        attempts[attempt] = (name, source)

    site.push(list(attempts))
    for name in names:
        mine = [attempt for attempt, (owner, _) in attempts.items() if owner == name]
        for tab in tabs[name]:
            await site.finals(tab, mine)

    # Closed first, so that a packet too many would have come.
    await site.trial.stop()
    seen_places = 0
    for name in names:
        own = {attempt for attempt, (owner, _) in attempts.items() if owner == name}
        for tab in tabs[name]:
            assert tab.packets[0] == {"cmd": "OK"}
            assert sum(packet["cmd"] == "OK" for packet in tab.packets) == 1
            assert {_attempt(packet) for packet in tab.packets[1:]} == own, "and nobody else's"
            for attempt in own:
                seen_places += _check(tab.of(attempt), SOURCES[attempts[attempt][1]])
    assert seen_places > 0, "nobody was told of a place"
    async with site.trial.admin() as admin:
        for attempt, (_, source) in attempts.items():
            grade, text = await admin.result(attempt)
            assert str(grade) == SOURCES[source][1]
            assert text


def _check(packets: list[Packet], expected: tuple[str, str]) -> int:
    """Check all that one tab was told of one attempt; returns how many places."""
    *before, final = packets
    places = [int(packet["place"]) for packet in before]
    assert all(packet["cmd"] == "PLACE_IN_QUEUE" for packet in before), "one final, the last packet"
    assert places == sorted(set(places), reverse=True), "places only fall"
    assert places != [0], "a start is told only after a place"
    assert not places or places[-1] == 0, "and always after one"
    assert final["cmd"] == "EXERCICE_EXECUTED"
    assert (final["status"], final["grade"]) == expected
    assert len({packet["run"] for packet in packets}) == 1
    return len(places)


def _attempt(packet: Packet) -> AttemptId:
    return AttemptId(int(packet.get("user_exercice_id") or packet["id"]))
