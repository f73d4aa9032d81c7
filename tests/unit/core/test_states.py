import pytest

from commserver.core.states import ACTIVE, ENDS, TRANSITIONS, State, Step, after, diagram

# Written down a second time on purpose: from the blueprint, not from the table.
BEGINS = {Step.SUBMITTED: State.QUEUED, Step.REFUSED: State.FAILED}
WAITING = {
    Step.REPLACED: State.QUEUED,
    Step.ASKED: State.QUEUED,
    Step.LEASED: State.LEASED,
    Step.ADOPTED: State.LEASED,
    Step.COMPLETED: State.DONE,
    Step.CANCELLED: State.CANCELLED,
}
IN_HAND = {
    Step.COMPLETED: State.DONE,
    Step.FAILED: State.FAILED,
    Step.RETRIED: State.QUEUED,
    Step.RELEASED: State.QUEUED,
    Step.CANCELLED: State.CANCELLED,
    Step.SUPERSEDED: State.SUPERSEDED,
}
ALLOWED: dict[State | None, dict[Step, State]] = {
    None: BEGINS,
    State.QUEUED: WAITING,
    State.LEASED: IN_HAND
    | {Step.ASKED: State.LEASED, Step.EXTENDED: State.LEASED, Step.STARTED: State.RUNNING},
    State.RUNNING: IN_HAND | {Step.ASKED: State.RUNNING, Step.EXTENDED: State.RUNNING},
}


@pytest.mark.parametrize("step", Step)
@pytest.mark.parametrize("before", [None, *State])
def test_each_step_leads_where_the_blueprint_says_or_nowhere(
    before: State | None, step: Step
) -> None:
    assert after(before, step) is ALLOWED.get(before, {}).get(step)


@pytest.mark.parametrize("end", sorted(ENDS))
@pytest.mark.parametrize("step", Step)
def test_nothing_happens_to_a_run_that_has_ended(end: State, step: Step) -> None:
    assert after(end, step) is None


def test_every_state_is_waiting_in_hand_or_an_end() -> None:
    assert {State.QUEUED} | ACTIVE | ENDS == set(State)
    assert [state for state in State if state.ended] == [
        State.DONE,
        State.FAILED,
        State.CANCELLED,
        State.SUPERSEDED,
    ]


def test_every_step_is_an_arrow_and_none_is_drawn_twice() -> None:
    drawn = [(arrow.before, arrow.step) for arrow in TRANSITIONS]

    assert len(drawn) == len(set(drawn))
    assert {step for _, step in drawn} == set(Step)


def test_the_diagram_prints_every_arrow_and_every_end() -> None:
    lines = diagram().splitlines()

    assert lines[0] == "stateDiagram-v2"
    assert [line.strip() for line in lines[1:]] == [
        *(f"{before or '[*]'} --> {after}: {step}" for before, step, after in TRANSITIONS),
        *(f"{state} --> [*]" for state in State if state.ended),
    ]
