"""What one socket has still to be sent."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.core.finals import Final
from commserver.core.states import State
from commserver.core.verdicts import Cause, Failure
from commserver.gateways.browser import notices
from commserver.gateways.browser.outbox import Behind, Close, Outbox
from commserver.gateways.browser.packets import Announcement, Error, Ok, Progress
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

    assert await drained(outbox) == [Ok(), Behind(0, None)]
    outbox.caught_up([make_final(4, "a"), make_final(6, "c")], 7, more=False)
    assert await told(outbox) == [("a", "accepted"), ("c", "accepted"), ("b", "place 2")]


async def test_a_socket_that_falls_behind_says_since_when_it_is_there() -> None:
    outbox = Outbox(10)
    outbox.follow()
    await drained(outbox)
    outbox.caught_up([], 7, more=False)

    outbox.ended(A.id, make_final(9))

    assert await drained(outbox) == [Behind(7, 7)]


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


# -- what was asked for ---------------------------------------------------------------------------


async def test_a_place_that_was_sent_is_not_sent_again_unless_it_is_asked_for() -> None:
    outbox = following()
    outbox.place(A, 2)
    await drained(outbox)

    outbox.place(A, 2)
    unasked = await told(outbox)
    outbox.asked(A, 2)

    assert (unasked, await told(outbox)) == ([], [("a", "place 2")])


async def test_a_place_that_moved_and_moved_back_before_it_was_sent_is_not_sent_again() -> None:
    outbox = following()
    outbox.place(A, 2)
    await drained(outbox)

    outbox.place(A, 1)
    outbox.place(A, 2)

    assert await told(outbox) == []


async def test_who_asks_for_a_run_in_hand_is_told_0_once() -> None:
    outbox = following()

    outbox.asked(A, 0)
    first = await told(outbox)
    outbox.place(A, 0)

    assert (first, await told(outbox)) == ([("a", "place 0")], [])


async def test_a_run_that_begins_before_the_place_asked_for_was_sent_is_told_so() -> None:
    outbox = following()

    outbox.asked(A, 3)
    outbox.place(A, 0)

    assert await told(outbox) == [("a", "place 0")]


async def test_a_final_takes_the_place_of_a_place_that_was_asked_for() -> None:
    outbox = following()

    outbox.asked(A, 1)
    outbox.ended(A.id, make_final())
    first = await told(outbox)
    outbox.place(A, 0)

    assert (first, await told(outbox)) == ([("a", "accepted")], [])


async def test_a_final_told_again_moves_nothing_and_is_no_push() -> None:
    """Else a pong would acknowledge finals that were not sent yet."""
    outbox = Outbox(10)
    outbox.follow()
    final = notices.final(make_final(7, "a"))
    assert final

    outbox.answer(final)
    await outbox.next()
    left = outbox.left()
    outbox.ended(B.id, make_final(8, "b"))

    assert (left, outbox.sent) == (0, 0)
    assert await told(outbox) == [("", "behind 0")]


# -- finals that are held back --------------------------------------------------------------------


async def test_finals_that_come_while_a_command_is_carried_out_follow_its_answer() -> None:
    """Without being read: another tab may have them acknowledged by then."""
    outbox = following()

    outbox.hold()
    outbox.ended(A.id, make_final(1, "a"))
    outbox.ended(B.id, make_final(2, "b"))
    held = await told(outbox)
    outbox.answer(Ok())
    outbox.release()

    assert held == []
    assert await told(outbox) == [("", "Ok()"), ("a", "accepted"), ("b", "accepted")]


async def test_finals_that_were_read_while_a_command_is_carried_out_follow_its_answer() -> None:
    outbox = Outbox(10)
    outbox.follow()
    await drained(outbox)

    outbox.hold()
    outbox.caught_up([make_final(1, "a")], 1, more=False)
    held = await told(outbox)
    outbox.answer(Ok())
    outbox.release()

    assert (held, await told(outbox)) == ([], [("", "Ok()"), ("a", "accepted")])


async def test_finals_that_are_held_back_take_room() -> None:
    outbox = following(2)

    outbox.hold()
    for seq in (1, 2, 3):
        outbox.ended(A.id, make_final(seq, f"r{seq}"))
    outbox.release()

    assert await told(outbox) == [("r1", "accepted"), ("r2", "accepted"), ("", "behind 2")]


async def test_finals_that_are_held_back_do_not_follow_the_last_word() -> None:
    outbox = following()

    outbox.hold()
    outbox.ended(A.id, make_final(1, "a"))
    outbox.close(1008, "why")
    outbox.release()

    assert await told(outbox) == [("", "close 1008")]


async def test_a_pong_acknowledges_no_final_that_is_held_back() -> None:
    outbox = following()

    outbox.hold()
    outbox.ended(A.id, make_final(1, "a"))

    assert outbox.sent == 0


# -- progress and announcements -------------------------------------------------------------------


async def test_progress_is_told_to_who_wants_it_the_newest_of_each_run() -> None:
    outbox = following()
    outbox.progress(A, "run", "1/9")
    before = await drained(outbox)

    outbox.switch_progress(on=True)
    for number in range(2, 5):
        outbox.progress(A, "run", f"{number}/9")
        outbox.progress(B, "run", f"{number}/5")
    during = await drained(outbox)
    outbox.progress(A, "run", "5/9")
    outbox.switch_progress(on=False)
    outbox.progress(A, "run", "6/9")

    assert before == []
    assert during == [Progress("1", "a", "run", "4/9"), Progress("2", "b", "run", "4/5")]
    assert await drained(outbox) == []


async def test_switching_progress_on_twice_forgets_nothing() -> None:
    outbox = following()
    outbox.switch_progress(on=True)
    outbox.progress(A, "run", "1/9")

    outbox.switch_progress(on=True)

    assert await drained(outbox) == [Progress("1", "a", "run", "1/9")]


@pytest.mark.parametrize("read", [False, True])
async def test_no_progress_follows_its_runs_final(read: bool) -> None:
    outbox = following()
    outbox.switch_progress(on=True)
    outbox.progress(A, "run", "1/9")

    if read:
        outbox.caught_up([make_final(1, "a")], 1, more=False)
    else:
        outbox.ended(A.id, make_final(1, "a"))

    assert await told(outbox) == [("a", "accepted")]


async def test_an_announcement_goes_last_and_only_the_newest() -> None:
    outbox = following()
    outbox.switch_progress(on=True)
    first, second = Announcement("1", "soon", ""), Announcement("1", "", "")

    outbox.announcement(first)
    outbox.announcement(second)
    outbox.progress(A, "run", "1/9")
    outbox.place(B, 1)
    outbox.answer(Ok())

    assert await drained(outbox) == [
        Ok(),
        notices.place(B, 1),
        Progress("1", "a", "run", "1/9"),
        second,
    ]


# -- receipts -------------------------------------------------------------------------------------


async def test_only_what_has_left_counts_as_sent() -> None:
    outbox = following()
    outbox.ended(A.id, make_final(1, "a"))
    outbox.ended(B.id, make_final(2, "b"))
    await outbox.next()
    before = outbox.sent

    left = [outbox.left()]
    await outbox.next()
    left.append(outbox.left())
    for packet in (Ok(), Error("400", "OTHER", "")):
        outbox.answer(packet)
        await outbox.next()
        left.append(outbox.left())

    assert (before, outbox.sent, left) == (0, 2, [1, 2, 0, 0])


async def test_a_receipt_is_asked_for_soon_after_a_final_has_left() -> None:
    outbox = following()
    asking = asyncio.create_task(outbox.news(0, period=60, delay=0))
    await asyncio.sleep(0)
    assert not asking.done()

    outbox.ended(A.id, make_final(1))
    await outbox.next()
    outbox.left()

    async with asyncio.timeout(5):
        await asking


async def test_a_receipt_that_was_asked_for_is_asked_for_again_only_after_a_period() -> None:
    outbox = following()
    outbox.ended(A.id, make_final(1))
    await outbox.next()
    outbox.left()

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
        lambda outbox: outbox.asked(A, 0),
        lambda outbox: outbox.announcement(Announcement("1", "soon", "")),
        lambda outbox: (outbox.switch_progress(on=True), outbox.progress(A, "run", "1/9")),
    ],
)
async def test_a_socket_that_waits_is_woken_by_whatever_comes(
    act: Callable[[Outbox], object],
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
@given(
    st.lists(st.sampled_from(["ask", "ask in hand", "place", "begin", "progress", "hold", "take"])),
    st.sampled_from(list(ENDS)),
)
async def test_whoever_asks_is_answered_and_nothing_follows_the_end(
    life: list[str], end: State
) -> None:
    """Each STATUS of a run brings a place after it, or its end; a place is told once unasked."""
    outbox = following(1000)
    outbox.switch_progress(on=True)
    heard: list[str] = []
    asked = False
    for number, step in enumerate(life, start=1):
        match step:
            case "ask":
                outbox.asked(A, number)
                asked = True
            case "ask in hand":
                outbox.asked(A, 0)
                asked = True
            case "place":
                outbox.place(A, number)
            case "begin":
                outbox.place(A, 0)
            case "progress":
                outbox.progress(A, "run", str(number))
            case "hold":
                outbox.hold()
                outbox.release()
            case _:
                now = [word for _, word in await told(outbox)]
                assert not asked or any(word.startswith("place ") for word in now)
                heard, asked = heard + now, False

    outbox.hold()
    outbox.ended(A.id, ENDS[end])
    outbox.answer(Ok())
    outbox.release()
    outbox.place(A, 0)
    last = [word for _, word in await told(outbox)]

    assert last[0] == "Ok()"
    assert len(last) == (1 if end is State.SUPERSEDED else 2)
    assert not any(word.startswith("place ") or "Progress" in word for word in last)


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
