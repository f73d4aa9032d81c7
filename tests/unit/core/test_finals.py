"""Whom an end is owed, and in which order it is given."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.core.board import Board
from commserver.core.changes import Change
from commserver.core.finals import (
    WEBHOOK,
    Cursor,
    Final,
    account,
    backend,
    ending,
    recipients,
)
from commserver.core.jobs import Job, OwnerId, Purpose
from commserver.core.states import State
from commserver.core.verdicts import Broken, Cause, Failure, Judged, Status
from tests.fakes import broken, completed, make_final, make_job


def refused(job: Job) -> Change:
    return Board().refuse(job, broken(Cause.FULL).failure)


def test_an_end_is_owed_to_the_account_whose_attempt_it_is() -> None:
    assert recipients(refused(make_job("a", attempt=1, owner="12"))) == ["account:12"]
    assert account(OwnerId("12")) == "account:12"


@pytest.mark.parametrize(
    "job",
    [
        make_job("a", owner="recodex:main"),
        make_job("a", attempt=1, owner=""),
        make_job("a", attempt=1, owner="12", purpose=Purpose.REJUDGE),
    ],
    ids=["a foreign run", "nobody's attempt", "a rejudge run"],
)
def test_an_end_of_which_no_student_is_told_is_owed_to_nobody(job: Job) -> None:
    assert recipients(refused(job)) == []


MAIN = backend("main")


def test_whoever_is_to_be_told_is_owed_the_end_too_in_the_order_in_which_all_are_locked() -> None:
    job = make_job("a", attempt=1, owner="12").telling([WEBHOOK, MAIN])

    assert recipients(refused(job)) == ["account:12", "backend:main", "webhook"]


def test_a_run_that_gave_way_is_owed_to_whoever_asked_for_it_and_to_no_student() -> None:
    job = make_job("a", attempt=1, owner="12").telling([MAIN])
    change = replace(refused(job), state=State.SUPERSEDED)

    assert recipients(change) == [MAIN]


def test_whoever_is_told_twice_is_told_once() -> None:
    job = make_job("a").telling([MAIN, WEBHOOK]).telling([WEBHOOK, MAIN])

    assert job.tell == (MAIN, WEBHOOK)


def test_what_is_no_end_is_owed_to_nobody() -> None:
    change = Board().submit(make_job("a", attempt=1, owner="12"))

    assert isinstance(change, Change)
    assert recipients(change) == []


class Series:
    """A recipient's finals as they are committed, and one receiver of them."""

    def __init__(self, delivered: int) -> None:
        self.finals: list[Final] = []
        self.given: list[int] = []
        self.unheard: list[Final] = []  # committed, and not reported yet
        self.cursor = Cursor()
        self.delivered = delivered
        for _ in range(delivered):
            self.commit()
        self.unheard.clear()

    def commit(self) -> None:
        self.finals.append(make_final(len(self.finals) + 1))
        self.unheard.append(self.finals[-1])

    def hear(self, which: int, *, room: bool) -> None:
        if self.unheard:
            final = self.unheard.pop(which % len(self.unheard))
            if self.cursor.heard(final.seq, room=room):
                self.given.append(final.seq)

    def read(self, at_once: int) -> None:
        """Read as a socket does: only when it is behind."""
        if self.cursor.behind:
            after = max(self.cursor.after, self.delivered)
            owed = [final for final in self.finals if final.seq > after]
            self.given += [final.seq for final in owed[:at_once]]
            more = len(owed) > at_once
            self.cursor.caught_up(owed[:at_once], len(self.finals), more=more)


steps = st.one_of(
    st.just(("commit", 0)),
    st.tuples(st.just("hear"), st.integers(0, 5)),
    st.tuples(st.just("hear without room"), st.integers(0, 5)),
    st.tuples(st.just("read"), st.integers(1, 3)),
)


@settings(deadline=None)
@given(st.integers(0, 3), st.lists(steps, max_size=40))
def test_however_reports_and_reads_interleave_each_final_is_given_once_in_order(
    delivered: int, life: list[tuple[str, int]]
) -> None:
    series = Series(delivered)
    for step, number in life:
        match step:
            case "commit":
                series.commit()
            case "read":
                series.read(number)
            case _:
                series.hear(number, room=step == "hear")
        assert series.given == list(range(delivered + 1, delivered + 1 + len(series.given)))

    while series.unheard:
        series.hear(0, room=False)
    while series.cursor.behind:
        series.read(2)

    assert series.given == list(range(delivered + 1, len(series.finals) + 1))


def test_a_receiver_remembers_where_the_series_ended_when_it_began() -> None:
    cursor = Cursor()
    assert cursor.since is None
    cursor.caught_up([make_final(3)], 7, more=True)
    cursor.caught_up([], 9, more=False)

    assert cursor.since == 7


def test_the_next_final_is_given_without_a_read() -> None:
    cursor = Cursor()
    cursor.caught_up([], 7, more=False)

    assert cursor.heard(8)
    assert not cursor.behind
    assert cursor.after == 8


def test_what_is_told_at_once_is_as_clean_as_what_is_read_back() -> None:
    outcome = Broken(Failure(Cause.CONTAINER, "a\x00b\ud800\u202ec", "c0\x07ffee"))

    assert ending(outcome) == Failure(Cause.CONTAINER, "abc", "c0ffee")


def test_a_verdict_is_told_in_short() -> None:
    assert ending(completed(7)) == Judged(Status.ACCEPTED, 7, 10)
    assert ending(None) is None
