"""What one socket has still to be sent."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.core.execution import Cause, Outcome
from commserver.core.states import State
from commserver.gateways.browser.outbox import Close, Outbox
from commserver.gateways.browser.packets import Error, Ok
from tests.fakes import broken, completed, make_job
from tests.unit.gateways.browser.outboxes import drained, told

A, B = make_job("a", attempt=1), make_job("b", attempt=2)


# -- places ---------------------------------------------------------------------------------------


async def test_only_the_newest_place_of_each_run_goes_out() -> None:
    outbox = Outbox(limit=10)
    outbox.place(A, 3)
    outbox.place(B, 4)
    outbox.place(A, 2)

    assert await told(outbox) == [("a", "place 2"), ("b", "place 4")]


async def test_a_place_that_changes_after_it_was_taken_goes_out_again() -> None:
    outbox = Outbox(limit=10)
    outbox.place(A, 2)
    await drained(outbox)

    outbox.place(A, 1)

    assert await told(outbox) == [("a", "place 1")]


async def test_answers_and_finals_go_before_places() -> None:
    outbox = Outbox(limit=10)
    outbox.place(B, 2)
    outbox.answer(Ok())
    outbox.ended(A, State.DONE, completed())

    assert await told(outbox) == [("", "Ok()"), ("a", "accepted"), ("b", "place 2")]


async def test_a_run_that_begins_is_told_once_to_who_was_sent_its_place() -> None:
    outbox = Outbox(limit=10)
    outbox.place(A, 1)
    await drained(outbox)

    outbox.place(A, 0)
    first = await told(outbox)
    outbox.place(A, 0)

    assert first == [("a", "place 0")]
    assert await told(outbox) == []


async def test_a_run_that_begins_before_its_place_was_sent_is_not_told_of() -> None:
    outbox = Outbox(limit=10)
    outbox.place(A, 1)

    outbox.place(A, 0)

    assert await told(outbox) == []


async def test_a_run_that_begins_at_once_is_not_told_of() -> None:
    outbox = Outbox(limit=10)

    outbox.place(A, 0)

    assert await told(outbox) == []


async def test_a_run_that_waits_again_before_its_beginning_was_sent_only_has_the_newer_place() -> (
    None
):
    outbox = Outbox(limit=10)
    outbox.place(A, 1)
    await drained(outbox)

    outbox.place(A, 0)
    outbox.place(A, 2)

    assert await told(outbox) == [("a", "place 2")]


async def test_each_beginning_is_told_once() -> None:
    outbox = Outbox(limit=10)
    seen = []
    for place in (1, 0, 1, 0):
        outbox.place(A, place)
        seen += await told(outbox)

    assert seen == [("a", "place 1"), ("a", "place 0"), ("a", "place 1"), ("a", "place 0")]


# -- finals ---------------------------------------------------------------------------------------


async def test_a_final_takes_the_place_of_a_place() -> None:
    outbox = Outbox(limit=10)
    outbox.place(A, 1)

    outbox.ended(A, State.DONE, completed(7))

    assert await told(outbox) == [("a", "accepted")]


async def test_a_final_takes_the_place_of_a_beginning() -> None:
    outbox = Outbox(limit=10)
    outbox.place(A, 1)
    await drained(outbox)
    outbox.place(A, 0)

    outbox.ended(A, State.DONE, completed())

    assert await told(outbox) == [("a", "accepted")]


async def test_a_superseded_run_vanishes_without_a_word() -> None:
    outbox = Outbox(limit=10)
    outbox.place(A, 1)

    outbox.ended(A, State.SUPERSEDED, None)

    assert await told(outbox) == []


async def test_a_run_that_could_not_be_graded_ends_with_an_error() -> None:
    outbox = Outbox(limit=10)

    outbox.ended(A, State.FAILED, broken(Cause.EXERCISE))

    [error] = await drained(outbox)
    assert isinstance(error, Error)
    assert (error.error_code, error.target, error.target_id) == ("500", "EXERCICE", "1")


# -- its end --------------------------------------------------------------------------------------


async def test_what_was_kept_goes_out_before_the_socket_is_closed() -> None:
    outbox = Outbox(limit=10)
    outbox.answer(Ok())
    outbox.close(1008, "why")

    assert await drained(outbox) == [Ok(), Close(1008, "why")]


async def test_nothing_follows_the_last_word() -> None:
    outbox = Outbox(limit=10)
    outbox.close(1008, "why")

    outbox.answer(Ok())
    outbox.ended(A, State.DONE, completed())
    outbox.place(B, 1)

    assert await drained(outbox) == [Close(1008, "why")]


async def test_only_the_first_reason_to_close_counts() -> None:
    outbox = Outbox(limit=10)

    outbox.close(1008, "first")
    outbox.close(1001, "second")

    assert await drained(outbox) == [Close(1008, "first")]


async def test_a_reader_that_is_too_slow_is_closed_instead_of_sent_more() -> None:
    outbox = Outbox(limit=2)

    for _ in range(3):
        outbox.answer(Ok())

    assert await drained(outbox) == [Close(1013, "too slow")]


async def test_a_reader_that_was_too_slow_is_never_sent_what_comes_after_a_gap() -> None:
    outbox = Outbox(limit=2)
    for _ in range(3):
        outbox.answer(Ok())

    outbox.ended(A, State.DONE, completed())

    assert await drained(outbox) == [Close(1013, "too slow")]


async def test_places_make_no_reader_too_slow() -> None:
    outbox = Outbox(limit=1)

    for place in range(100, 0, -1):
        outbox.place(A, place)

    assert await told(outbox) == [("a", "place 1")]


@pytest.mark.parametrize(
    "act",
    [
        lambda outbox: outbox.answer(Ok()),
        lambda outbox: outbox.place(A, 1),
        lambda outbox: outbox.ended(A, State.DONE, completed()),
        lambda outbox: outbox.close(1001, ""),
    ],
)
async def test_a_socket_that_waits_is_woken_by_whatever_comes(
    act: Callable[[Outbox], None],
) -> None:
    outbox = Outbox(limit=10)
    waiting = asyncio.create_task(outbox.next())
    await asyncio.sleep(0)
    assert not waiting.done()

    act(outbox)

    async with asyncio.timeout(5):
        await waiting


# -- any order ------------------------------------------------------------------------------------

ENDS: dict[State, Outcome | None] = {
    State.DONE: completed(),
    State.FAILED: broken(),
    State.CANCELLED: None,
    State.SUPERSEDED: None,
}


@settings(deadline=None)
@given(st.lists(st.sampled_from(["place", "begin", "take"])), st.sampled_from(list(ENDS)))
async def test_whatever_happens_a_socket_reads_a_possible_story(
    life: list[str], end: State
) -> None:
    """Places first; "0" only right after a place; one final or none, and nothing after it."""
    outbox = Outbox(limit=1000)
    heard: list[str] = []
    for number, step in enumerate(life, start=1):
        match step:
            case "place":
                outbox.place(A, number)
            case "begin":
                outbox.place(A, 0)
            case _:
                heard += [word for _, word in await told(outbox)]

    outbox.ended(A, end, ENDS[end])
    outbox.place(A, 0)
    heard += [word for _, word in await told(outbox)]

    finals = 0 if end is State.SUPERSEDED else 1
    places, rest = heard[: len(heard) - finals], heard[len(heard) - finals :]
    assert all(word.startswith("place ") for word in places)
    assert not any(word.startswith("place ") for word in rest)
    assert all(
        before != "place 0" for before, word in pairwise(["place 0", *places]) if word == "place 0"
    )
