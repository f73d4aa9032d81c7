"""What one socket has still to be sent."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.core.execution import Cause, Failure
from commserver.core.finals import Final
from commserver.core.states import State
from commserver.gateways.browser.outbox import Behind, Close, Outbox
from commserver.gateways.browser.packets import Error, ExerciceExecuted, Ok
from tests.fakes import make_final, make_job
from tests.unit.gateways.browser.outboxes import drained, following, told

A, B = make_job("a", attempt=1), make_job("b", attempt=2)


# -- places ---------------------------------------------------------------------------------------


async def test_only_the_newest_place_of_each_run_goes_out() -> None:
    outbox = following()
    outbox.place(A, 3)
    outbox.place(B, 4)
    outbox.place(A, 2)

    assert await told(outbox) == [("a", "place 2"), ("b", "place 4")]


async def test_a_place_that_changes_after_it_was_taken_goes_out_again() -> None:
    outbox = following()
    outbox.place(A, 2)
    await drained(outbox)

    outbox.place(A, 1)

    assert await told(outbox) == [("a", "place 1")]


async def test_answers_and_finals_go_before_places() -> None:
    outbox = following()
    outbox.place(B, 2)
    outbox.answer(Ok())
    outbox.ended(A.id, make_final())

    assert await told(outbox) == [("", "Ok()"), ("a", "accepted"), ("b", "place 2")]


async def test_a_run_that_begins_is_told_once_to_who_was_sent_its_place() -> None:
    outbox = following()
    outbox.place(A, 1)
    await drained(outbox)

    outbox.place(A, 0)
    first = await told(outbox)
    outbox.place(A, 0)

    assert first == [("a", "place 0")]
    assert await told(outbox) == []


async def test_a_run_that_begins_before_its_place_was_sent_is_not_told_of() -> None:
    outbox = following()
    outbox.place(A, 1)

    outbox.place(A, 0)

    assert await told(outbox) == []


async def test_a_run_that_begins_at_once_is_not_told_of() -> None:
    outbox = following()

    outbox.place(A, 0)

    assert await told(outbox) == []


async def test_a_run_that_waits_again_before_its_beginning_was_sent_only_has_the_newer_place() -> (
    None
):
    outbox = following()
    outbox.place(A, 1)
    await drained(outbox)

    outbox.place(A, 0)
    outbox.place(A, 2)

    assert await told(outbox) == [("a", "place 2")]


async def test_each_beginning_is_told_once() -> None:
    outbox = following()
    seen = []
    for place in (1, 0, 1, 0):
        outbox.place(A, place)
        seen += await told(outbox)

    assert seen == [("a", "place 1"), ("a", "place 0"), ("a", "place 1"), ("a", "place 0")]


# -- finals ---------------------------------------------------------------------------------------


async def test_a_final_takes_the_place_of_a_place() -> None:
    outbox = following()
    outbox.place(A, 1)

    outbox.ended(A.id, make_final())

    assert await told(outbox) == [("a", "accepted")]


async def test_a_final_takes_the_place_of_a_beginning() -> None:
    outbox = following()
    outbox.place(A, 1)
    await drained(outbox)
    outbox.place(A, 0)

    outbox.ended(A.id, make_final())

    assert await told(outbox) == [("a", "accepted")]


async def test_a_superseded_run_vanishes_without_a_word() -> None:
    outbox = following()
    outbox.place(A, 1)

    outbox.ended(A.id, None)

    assert await told(outbox) == []


async def test_a_run_that_could_not_be_graded_ends_with_an_error() -> None:
    outbox = following()

    failure = Failure(Cause.EXERCISE, "it is wrong")
    outbox.ended(A.id, make_final(state=State.FAILED, ending=failure))

    [error] = await drained(outbox)
    assert isinstance(error, Error)
    assert (error.error_code, error.target, error.target_id) == ("500", "EXERCICE", "1")


# -- finals in their order ------------------------------------------------------------------------


async def test_a_socket_that_follows_first_reads_what_is_owed_from_before() -> None:
    outbox = Outbox(10)
    outbox.answer(Ok())
    outbox.place(B, 2)

    outbox.follow()

    assert await drained(outbox) == [Ok(), Behind(0)]
    outbox.caught_up([make_final(4, "a"), make_final(6, "c")], 7, more=False)
    assert await told(outbox) == [("a", "accepted"), ("c", "accepted"), ("b", "place 2")]


async def test_places_and_answers_do_not_wait_for_a_read() -> None:
    outbox = Outbox(10)
    outbox.follow()
    await drained(outbox)

    outbox.place(B, 2)
    outbox.answer(Ok())
    outbox.ended(A.id, make_final(1, "a"))

    assert await told(outbox) == [("", "Ok()"), ("b", "place 2")]
    outbox.caught_up([], 0, more=False)
    assert await told(outbox) == [("", "behind 0")]


async def test_a_socket_that_nobody_is_behind_hears_of_no_final() -> None:
    outbox = Outbox(10)

    outbox.ended(A.id, make_final())

    assert await told(outbox) == []


async def test_what_happens_while_a_socket_reads_is_told_once() -> None:
    outbox = Outbox(10)
    outbox.follow()
    outbox.ended(A.id, make_final(1, "a"))  # in the rows before they are read
    outbox.caught_up([make_final(1, "a")], 1, more=False)

    assert await told(outbox) == [("a", "accepted")]


async def test_what_happens_after_the_rows_were_read_is_read_in_a_second_turn() -> None:
    outbox = Outbox(10)
    outbox.follow()
    outbox.ended(A.id, make_final(1, "a"))
    outbox.caught_up([], 0, more=False)

    assert await told(outbox) == [("", "behind 0")]


async def test_a_final_that_overtakes_another_waits_for_it() -> None:
    outbox = following()

    outbox.ended(B.id, make_final(2, "b"))

    assert await told(outbox) == [("", "behind 0")]
    outbox.ended(A.id, make_final(1, "a"))
    assert await told(outbox) == []
    outbox.caught_up([make_final(1, "a"), make_final(2, "b")], 2, more=False)
    assert await told(outbox) == [("a", "accepted"), ("b", "accepted")]


async def test_a_final_that_was_given_is_not_given_again() -> None:
    outbox = following()
    outbox.ended(A.id, make_final(1, "a"))

    outbox.ended(A.id, make_final(1, "a"))

    assert await told(outbox) == [("a", "accepted")]


async def test_finals_for_which_there_is_no_room_are_read_when_there_is() -> None:
    outbox = following(2)

    for seq in (1, 2, 3, 4):
        outbox.ended(A.id, make_final(seq, f"r{seq}"))

    assert await told(outbox) == [("r1", "accepted"), ("r2", "accepted"), ("", "behind 2")]
    outbox.caught_up([make_final(3, "r3")], 4, more=True)
    assert await told(outbox) == [("r3", "accepted"), ("", "behind 3")]


async def test_a_final_that_is_read_takes_the_place_of_a_place() -> None:
    outbox = Outbox(10)
    outbox.follow()
    outbox.place(A, 1)

    outbox.caught_up([make_final(1, "a")], 1, more=False)

    assert await told(outbox) == [("a", "accepted")]


# -- receipts -------------------------------------------------------------------------------------


async def test_only_what_has_left_counts_as_sent() -> None:
    outbox = following()
    outbox.ended(A.id, make_final(1, "a"))
    [packet] = await drained(outbox)
    before = outbox.sent

    assert isinstance(packet, ExerciceExecuted)
    outbox.left(packet)
    outbox.left(Ok())
    outbox.left(Error("400", "OTHER", ""))

    assert (before, outbox.sent) == (0, 1)


async def test_a_receipt_is_asked_for_soon_after_a_final_has_left() -> None:
    outbox = following()
    asking = asyncio.create_task(outbox.news(0, period=60, delay=0))
    await asyncio.sleep(0)
    assert not asking.done()

    outbox.left(ExerciceExecuted("1", seq="1"))

    async with asyncio.timeout(5):
        await asking


async def test_a_receipt_that_was_asked_for_is_asked_for_again_only_after_a_period() -> None:
    outbox = following()
    outbox.left(ExerciceExecuted("1", seq="1"))

    async with asyncio.timeout(5):
        await outbox.news(1, period=0.01, delay=60)


# -- its end --------------------------------------------------------------------------------------


async def test_what_was_kept_goes_out_before_the_socket_is_closed() -> None:
    outbox = following()
    outbox.answer(Ok())
    outbox.close(1008, "why")

    assert await drained(outbox) == [Ok(), Close(1008, "why")]


async def test_nothing_follows_the_last_word() -> None:
    outbox = following()
    outbox.close(1008, "why")

    outbox.answer(Ok())
    outbox.ended(A.id, make_final())
    outbox.place(B, 1)

    assert await drained(outbox) == [Close(1008, "why")]


async def test_only_the_first_reason_to_close_counts() -> None:
    outbox = following()

    outbox.close(1008, "first")
    outbox.close(1001, "second")

    assert await drained(outbox) == [Close(1008, "first")]


async def test_a_reader_that_is_too_slow_is_closed_instead_of_sent_more() -> None:
    outbox = following(2)

    for _ in range(3):
        outbox.answer(Ok())

    assert await drained(outbox) == [Close(1013, "too slow")]


async def test_a_reader_that_was_too_slow_is_never_sent_what_comes_after_a_gap() -> None:
    outbox = following(2)
    for _ in range(3):
        outbox.answer(Ok())

    outbox.ended(A.id, make_final())

    assert await drained(outbox) == [Close(1013, "too slow")]


async def test_places_make_no_reader_too_slow() -> None:
    outbox = following(1)

    for place in range(100, 0, -1):
        outbox.place(A, place)

    assert await told(outbox) == [("a", "place 1")]


@pytest.mark.parametrize(
    "act",
    [
        lambda outbox: outbox.answer(Ok()),
        lambda outbox: outbox.place(A, 1),
        lambda outbox: outbox.ended(A.id, make_final()),
        lambda outbox: outbox.close(1001, ""),
    ],
)
async def test_a_socket_that_waits_is_woken_by_whatever_comes(
    act: Callable[[Outbox], None],
) -> None:
    outbox = following()
    waiting = asyncio.create_task(outbox.next())
    await asyncio.sleep(0)
    assert not waiting.done()

    act(outbox)

    async with asyncio.timeout(5):
        await waiting


# -- any order ------------------------------------------------------------------------------------

ENDS: dict[State, Final | None] = {
    State.DONE: make_final(),
    State.FAILED: make_final(state=State.FAILED, ending=Failure(Cause.CONTAINER, "it broke")),
    State.CANCELLED: make_final(state=State.CANCELLED),
    State.SUPERSEDED: None,
}


@settings(deadline=None)
@given(st.lists(st.sampled_from(["place", "begin", "take"])), st.sampled_from(list(ENDS)))
async def test_whatever_happens_a_socket_reads_a_possible_story(
    life: list[str], end: State
) -> None:
    """Places first; "0" only right after a place; one final or none, and nothing after it."""
    outbox = following(1000)
    heard: list[str] = []
    for number, step in enumerate(life, start=1):
        match step:
            case "place":
                outbox.place(A, number)
            case "begin":
                outbox.place(A, 0)
            case _:
                heard += [word for _, word in await told(outbox)]

    outbox.ended(A.id, ENDS[end])
    outbox.place(A, 0)
    heard += [word for _, word in await told(outbox)]

    finals = 0 if end is State.SUPERSEDED else 1
    places, rest = heard[: len(heard) - finals], heard[len(heard) - finals :]
    assert all(word.startswith("place ") for word in places)
    assert not any(word.startswith("place ") for word in rest)
    assert all(
        before != "place 0" for before, word in pairwise(["place 0", *places]) if word == "place 0"
    )
