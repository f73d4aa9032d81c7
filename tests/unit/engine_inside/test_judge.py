"""Judges and checkers: what they hear, and how they decide."""

from pathlib import Path

import pytest

from tests.unit.engine_inside.inside import Left, start


def decide(script: str, box: Path, said: bytes = b"", case: bytes = b"") -> Left:
    """Run a judge to whom a player says something."""
    return start("judge", f"from grader import judge\n{script}", box, stdin=said, case=case)


GAME = """
top, secret, tries = judge.case_ints()
judge.say(top)
for _ in range(tries):
    guess = judge.hear_int()
    if guess == secret:
        judge.accept()
    judge.say("higher" if guess < secret else "lower")
judge.reject(f"not found in {tries} tries")
"""


@pytest.mark.parametrize(
    ("said", "exit", "answers", "tells"),
    [
        (b"50\n25 \r\n37", 0, ["100", "lower", "higher"], []),
        (b"1 2 3", 1, ["100"] + ["higher"] * 3, [{"say": "not found in 3 tries"}]),
        (b"1\nx", 2, ["100", "higher"], [{"say": "a whole number was expected, not 'x'"}]),
        (
            b"1\n",
            2,
            ["100", "higher"],
            [{"eof": True}, {"say": "nothing more was written where a whole number was expected"}],
        ),
        (b"\xff\n", 2, ["100"], [{"say": "something was written that is no text"}]),
        (b"1" * 200_000, 2, ["100"], [{"say": "a word is too long"}]),
    ],
)
def test_a_game_is_judged(
    box: Path, said: bytes, exit: int, answers: list[str], tells: list[dict[str, object]]
) -> None:
    left = decide(GAME, box, said, b"100 37 3\n")

    assert left.exit == exit, left.stderr
    assert left.stdout.split() == answers
    assert left.tells == tells


def test_what_is_heard_and_read(box: Path) -> None:
    script = r"""
assert judge.case_text() == "1 -2.5\nü\n"
assert judge.case_lines() == ["1 -2.5", "ü"]
assert judge.hear() == " first  line "
assert judge.hear_word() == "ü"
assert judge.hear() == "rest of it"
assert judge.hear() == ""
assert judge.hear_int() == -7
assert judge.hear_float() == 1e-3
assert judge.hear() == "last"
judge.points(2.5, "part")
"""

    said = " first  line \r\n ü rest  of it\n\n-7\n\t 1e-3 \nlast".encode()
    left = decide(script, box, said, "1 -2.5\nü\n".encode())

    assert left.exit == 7, left.stderr
    assert left.tells == [{"points": 2.5}, {"say": "part"}]


@pytest.mark.parametrize("word", ["1_000", "+-1", "٣", "1.0", "0x10", "nan"])
def test_a_whole_number_is_written_with_digits(box: Path, word: str) -> None:
    assert decide("judge.hear_int(); judge.accept()", box, word.encode()).exit == 2


@pytest.mark.parametrize("word", ["nan", "inf", "-Infinity", "1e999", "1,5"])
def test_a_number_is_finite(box: Path, word: str) -> None:
    assert decide("judge.hear_float(); judge.accept()", box, word.encode()).exit == 2


def test_a_line_has_a_bound(box: Path) -> None:
    said = b"x" * (16 << 20) + b"\n"

    assert decide("assert len(judge.hear()) == 16 << 20; judge.accept()", box, said).exit == 0
    assert decide("judge.hear(); judge.accept()", box, b"x" + b"x" * (17 << 20)).exit == 2


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("judge.case_ints()", "the case's input holds something else than whole numbers"),
        ("judge.case_floats()", "the case's input holds something else than numbers"),
        ("judge.say(1)", "it ended without a decision"),
        ("from grader import call; call('a.f')", "only a script can start a student's program"),
    ],
)
def test_misuse_is_the_teachers_fault(box: Path, script: str, fault: str) -> None:
    left = decide(script, box, case=b"1 x")

    assert left.exit == 3
    assert fault in left.told("fault")[0]


def test_a_decision_is_final_whatever_is_around_it(box: Path) -> None:
    script = """
try: judge.reject("no")
except: pass
finally: judge.accept()
"""

    assert decide(script, box).exit == 1


GONE = """
import os, sys
read, write = os.pipe()
os.dup2(write, 1); os.close(write); os.close(read)
"""


def test_a_player_that_has_ended_is_no_crash_of_the_judge(box: Path) -> None:
    left = decide(
        f"{GONE}\nfor n in range(10): judge.say('x' * 100_000)\nassert judge.gone\n"
        "judge.reject('gone')",
        box,
    )

    assert left.exit == 1, left.stderr
    assert left.told("say") == ["gone"]


@pytest.mark.parametrize("end", ["print('x')", "sys.stdout.write('x'); sys.exit(2)"])
def test_nor_of_a_judge_that_prints(box: Path, end: str) -> None:
    left = decide(f"{GONE}\n{end}", box)

    assert left.exit == 2
    assert not left.told("fault")


def test_that_nothing_more_came_is_told_of_a_judge_that_reads_by_itself(box: Path) -> None:
    left = decide("input()", box)

    assert left.exit == 3
    assert left.told("eof") == [True]
    assert left.told("fault") == ["grade.py, line 2: EOFError"]


@pytest.mark.parametrize(
    ("script", "exit", "tells"),
    [
        ("checker.accept() if checker.output == '2\\n' else checker.reject()", 0, []),
        ("checker.reject(checker.input + checker.expected)", 1, [{"say": "1\n3\n"}]),
        ("checker.presentation()", 2, []),
        ("import sys\nif checker.output: sys.exit(0)", 0, []),
        ("checker.output", 3, None),
    ],
)
def test_checkers_compare_files(
    box: Path, script: str, exit: int, tells: list[dict[str, object]] | None
) -> None:
    for name, text in (("input", "1\n"), ("output", "2\n"), ("expected", "3\n")):
        (box / name).write_text(text)

    left = start(
        "checker",
        f"from grader import checker\n{script}",
        box,
        arguments=("input", "output", "expected"),
    )

    assert left.exit == exit, left.stderr
    assert tells is None or left.tells == tells
