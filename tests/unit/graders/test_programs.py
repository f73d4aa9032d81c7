"""Programs of the teacher's: each way in which one can break is the teacher's fault."""

import pytest

from commserver.core.execution import NO_FLAG, Flag, ProcessReport
from commserver.core.verdicts import Status
from commserver.errors import GraderError
from commserver.graders.programs import Ended
from commserver.graders.telling import Told

NOTHING = Told()


def ended(
    exit_code: int = 0,
    flags: Flag = NO_FLAG,
    told: Told = NOTHING,
    errors: bytes = b"",
    path: str = "check.py",
) -> Ended:
    """Return how a checker ended."""
    process = ProcessReport("checker", exit_code, 0.25, 0.5, 1024, flags, stopped=bool(flags))
    return Ended(path, process, told, b"its log", errors)


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (ended(3), "exit status 3"),
        (ended(3, told=Told(fault="NameError: name 'x' is not defined")), "NameError: name 'x'"),
        (ended(0, told=Told(fault="it swallowed this")), "it swallowed this"),
        (ended(4), "exit status 4"),
        (ended(120), "exit status 120"),
        (ended(126), "exit status 126"),
        (ended(-11), "ended by SIGSEGV"),
        (ended(-9), "ended by SIGKILL"),
        (ended(0, Flag.CPU), "it was stopped: cpu_time"),
        (ended(1, Flag.REAL), "it was stopped: real_time"),
        (ended(-9, Flag.MEMORY | Flag.REAL), "it was stopped: memory"),
        (ended(1, Flag.OUTPUT), "it was stopped: output"),
        (ended(-31, Flag.SECURITY), "it was stopped: security"),
        (ended(7), "it gave no points, of 5, with exit status 7"),
        (ended(7, told=Told(points=5.5)), "it gave 5.5 points, of 5, with exit status 7"),
        (ended(7, told=Told(points=-1)), "it gave -1 points, of 5, with exit status 7"),
        (ended(7, errors=b"score 3"), "it gave no points, of 5, with exit status 7"),
        (ended(7, errors=b"points many"), "it gave no points, of 5, with exit status 7"),
        (ended(7, errors=b"points nan"), "it gave nan points, of 5, with exit status 7"),
    ],
)
def test_a_checker_that_breaks_is_never_a_wrong_answer(end: Ended, why: str) -> None:
    with pytest.raises(GraderError) as caught:
        end.decided(5)

    assert caught.value.message.startswith(f"the exercise's check.py failed: {why}")
    assert "\n" not in caught.value.message


def test_the_teacher_reads_all_that_is_known_of_it() -> None:
    told = Told(fault="KeyError\nand more", details="Traceback …")

    with pytest.raises(GraderError) as caught:
        ended(3, told=told, errors=b"its errors").decided(5)

    assert caught.value.message == "the exercise's check.py failed: KeyError"
    assert caught.value.details == "KeyError\nand more\nTraceback …\nits errors\nits log"


def test_what_a_program_told_and_wrote_is_repeated_once() -> None:
    told = Told(fault="KeyError", details="Traceback\n  KeyError\n")

    with pytest.raises(GraderError) as caught:
        ended(3, told=told, errors=b"a warning\nTraceback\n  KeyError\n").decided(5)

    assert caught.value.details == "KeyError\na warning\nTraceback\n  KeyError\nits log"


@pytest.mark.parametrize(
    ("end", "status", "earned"),
    [
        (ended(0), Status.ACCEPTED, 5),
        (ended(1), Status.WRONG_ANSWER, 0),
        (ended(2), Status.PRESENTATION, 0),
        (ended(7, told=Told(points=4.99)), Status.WRONG_ANSWER, 4),
        (ended(7, errors=b"points 3 well done\nmore"), Status.WRONG_ANSWER, 3),
        (ended(7, errors=b"points 5", path="check.c"), Status.ACCEPTED, 5),
    ],
)
def test_one_that_decides_is_understood(end: Ended, status: Status, earned: int) -> None:
    assert end.decided(5) == (status, earned)


def test_lines_that_tell_us_nothing_are_noted_for_the_teacher() -> None:
    notes = ended(told=Told(unread=2)).notes

    assert notes[-1] == ("check.py told, on descriptor 4", b"2 lines that say nothing to us")
    assert not any(text for label, text in ended().notes if "descriptor" in label)
