"""The pipes of a pipeline, as a teacher writes them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.graders.arrows import (
    Arrow,
    CaseData,
    Kept,
    ProgramFd,
    ProgramFile,
    parse_arrow,
    stage_problems,
)


@pytest.mark.parametrize(
    ("text", "arrow"),
    [
        ("judge.1 -> player.0", Arrow(ProgramFd("judge", 1), ProgramFd("player", 0))),
        ("case.input->judge.3", Arrow(CaseData("input"), ProgramFd("judge", 3))),
        (" case.expected -> judge.5 ", Arrow(CaseData("expected"), ProgramFd("judge", 5))),
        ("player.1 -> output", Arrow(ProgramFd("player", 1), Kept("output"))),
        ("output -> checker.0", Arrow(Kept("output"), ProgramFd("checker", 0))),
        ("player/a b.txt -> kept", Arrow(ProgramFile("player", "a b.txt"), Kept("kept"))),
        ("case.input -> judge/x/in", Arrow(CaseData("input"), ProgramFile("judge", "x/in"))),
        ("output -> checker/out", Arrow(Kept("output"), ProgramFile("checker", "out"))),
    ],
)
def test_an_arrow_says_from_where_to_where(text: str, arrow: Arrow) -> None:
    assert parse_arrow(text) == arrow


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("judge.1 player.0", "is not written"),
        ("-> player.0", "is not written"),
        ("judge.1 -> case.input", "nothing can be written to case.input"),
        ("judge.1 -> player.256", "no descriptor above 255"),
        ("judge.1 -> player.1000", "is neither"),
        ("judge.one -> player.0", "'judge.one' is neither"),
        ("case -> player.0", "'case' is neither"),
        ("case.secret -> player.0", "'case.secret' is neither"),
        ("player/../x -> kept", "a file cannot be called '../x'"),
        ("player/x -> judge.3", "is kept under a name first"),
        ("player.1 -> judge/x", "is kept under a name first"),
        ("case.input -> kept", "is known to later stages as it is"),
        ("kept -> other", "is known to later stages as it is"),
    ],
)
def test_an_arrow_that_leads_nowhere_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_arrow(text)


@settings(deadline=None, max_examples=50)
@given(st.text(), st.text())
def test_any_text_is_an_arrow_or_refused(source: str, target: str) -> None:
    try:
        arrow = parse_arrow(f"{source} -> {target}")
    except ValueError:
        return

    assert isinstance(arrow, Arrow)


@pytest.mark.parametrize(
    ("pipes", "problem"),
    [
        (["other.1 -> player.0"], "at.pipes[1]: 'other' does not run in this stage"),
        (["judge.1 -> player.0", "judge.1 -> out"], "at.pipes[2]: one of its ends has a pipe"),
        (["a/b -> out", "judge/x -> out2"], "at.pipes[1]: 'a' does not run in this stage"),
        (["case.input -> judge.4"], "at.pipes[1]: judge.4 is where it tells us its points"),
        (["kept -> judge.0"], "at.pipes[1]: no earlier stage keeps anything called 'kept'"),
        (["player.1 -> out", "out -> judge.0"], "at.pipes[2]: no earlier stage keeps"),
        (["player.1 -> earlier"], "at.pipes[1]: 'earlier' is kept already"),
        (["player.1 -> out", "player.2 -> out"], "at.pipes[2]: 'out' is kept already"),
        (["case.expected -> player.3"], "at.pipes[1]: students' programs never see"),
        (["case.expected -> player/x"], "at.pipes[1]: students' programs never see"),
    ],
)
def test_what_cannot_be_in_a_stage_is_named(pipes: list[str], problem: str) -> None:
    arrows = [parse_arrow(pipe) for pipe in pipes]

    found = stage_problems("at", arrows, ["judge", "player"], {"player"}, {"earlier"})

    assert any(said.startswith(problem) for said in found), found


def test_what_a_stage_keeps_is_known_afterwards() -> None:
    kept = {"earlier"}
    arrows = [parse_arrow(text) for text in ("player.1 -> out", "earlier -> judge.0")]

    assert stage_problems("at", arrows, ["judge", "player"], {"player"}, kept) == []
    assert kept == {"earlier", "out"}


def test_a_students_program_may_have_a_pipe_where_others_tell_their_points() -> None:
    arrows = [parse_arrow("case.input -> player.4")]

    assert stage_problems("at", arrows, ["player"], {"player"}, set()) == []
