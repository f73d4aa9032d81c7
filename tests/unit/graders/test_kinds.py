"""What every kind of exercise has in common."""

from dataclasses import replace

import pytest

from commserver.core.execution import Flag, RunReport
from commserver.core.text import TEXT_LIMIT
from commserver.core.verdicts import CaseVerdict, Status, Verdict
from commserver.errors import DefinitionError
from commserver.graders import kinds
from commserver.graders.content import Content
from commserver.graders.kinds import Plan, better
from tests.unit.graders.reports import End, report, run
from tests.unit.graders.toml import exercise, with_files

SCRIPT = with_files(
    exercise('script = "grade.py"', kind='"script"', cases=""), grade__py="import grader"
)
HASH = "0f" * 32


def content(grader: str, name: str = "main.py", language: str = "python") -> Content:
    """Return one file to be judged by this grader."""
    return Content(language, 20, ((name, ""),), grader)


def planned(wanted: Content) -> Plan:
    """Return what has to be run; there must be something."""
    plan = kinds.plan(wanted, {})
    assert not isinstance(plan, Verdict)
    return plan


# -- what a row refers to -------------------------------------------------------------------------


def test_a_row_refers_to_what_it_has_in_the_file_store() -> None:
    row = with_files(exercise(), a="text") + f'\nb = {{ sha256 = "{HASH}", size = 3 }}\n'
    row += 'c = { base64 = "AAAA" }\n'

    assert kinds.references(row) == {HASH}


@pytest.mark.parametrize("row", ["print('GRADE: 20')", "format = 1\nkey = 3", "", exercise()])
def test_a_script_or_a_broken_row_refers_to_nothing(row: str) -> None:
    assert kinds.references(row) == frozenset()


def test_what_a_row_refers_to_is_part_of_what_a_content_is() -> None:
    """So that other bytes in the file store are another content, and another hash."""
    one = content(f'format = 1\n[files]\na = {{ sha256 = "{HASH}" }}')
    other = replace(one, grader=one.grader.replace("0f", "f0"))

    assert one.encode() != other.encode()


# -- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "image"),
    [
        (content(exercise()), "python"),
        (content(exercise(language='"c"'), "main.c", "c"), "c"),
        (content(exercise('image = "python-numpy"')), "python-numpy"),
        (content(exercise('checker = { program = "a.c" }')), "c"),
        (content(exercise('checker = { program = "a.py" }')), "python"),
        (content(SCRIPT), "python"),
        (content("print('GRADE: 20')"), "python"),
        (content("print('GRADE: 20')", "main.c", "c"), "c"),
        (content(exercise(language=None, languages='["python", "c"]'), "main.c"), "c"),
        (content(exercise(language=None, languages='["python", "c"]'), "main.txt"), "python"),
    ],
)
def test_the_image_has_all_that_is_needed(wanted: Content, image: str) -> None:
    assert kinds.image(wanted) == image


@pytest.mark.parametrize("grader", ["format = 1", "print('GRADE: 20')"])
def test_an_exercise_without_an_image_is_the_teachers_fault(grader: str) -> None:
    with pytest.raises(DefinitionError):
        kinds.image(content(grader, language="cobol"))


# -- the early look -------------------------------------------------------------------------------


def test_how_long_it_may_take_is_known_without_the_file_store() -> None:
    cases = '[[cases]]\nname = "a"\nfiles = "cases/*.in"\n'
    row = exercise('limits = { real = "3 s" }', cases=cases) + (
        f'[files]\n"cases/1.in" = {{ sha256 = "{HASH}" }}\n"cases/1.out" = ""\n'
        f'"cases/2.in" = ""\n"cases/2.out" = {{ sha256 = "{HASH}" }}\n'
    )

    assert kinds.check(content(row)) == 6.0


def test_files_that_cannot_be_started_take_no_time() -> None:
    assert kinds.check(content(exercise('submission.files = ["other.py"]'))) == 0.0


def test_a_pipeline_in_the_file_store_is_not_looked_at_early() -> None:
    extra = 'pipeline = "a.json"\nprograms = { a = "submission" }\nlimits = { real = "4 s" }'
    row = exercise(extra, kind='"pipeline"', cases="")
    row += f'[files]\n"a.json" = {{ sha256 = "{HASH}" }}\n'

    assert kinds.check(content(row)) == 4.0


def test_a_wrong_exercise_is_found_early() -> None:
    with pytest.raises(DefinitionError, match=r"there is no file 'check\.py'"):
        kinds.check(content(exercise('checker = { program = "check.py" }')))


# -- so close to a limit that it is run again -----------------------------------------------------


@pytest.mark.parametrize(
    ("end", "close"),
    [
        (End(cpu=0.89), False),
        (End(cpu=0.9), True),
        (End(cpu=1.0), True),
        (End(cpu=1.05, flags=Flag.CPU), True),  # it ended by itself, flags or not
        (End(1, cpu=1.1, flags=Flag.CPU), True),
        (End(-9, cpu=1.1, flags=Flag.CPU, stopped=True), False),  # a time-out at once
        (End(cpu=1.11, flags=Flag.CPU), False),
    ],
)
def test_close_is_from_nine_to_eleven_tenths_of_the_limit_by_itself(end: End, close: bool) -> None:
    plan = planned(content(exercise('limits = { cpu = "1 s" }')))

    assert plan.close(report(plan.request, {"program": end})) is close


@pytest.mark.parametrize(
    ("runs", "close"),
    [
        ((run("call", cpu=0.5), run("run", cpu=0.95)), True),
        ((run("call", cpu=0.5),), False),
        ((run("call", -9, Flag.CPU, cpu=1.1),), False),
        ((run("other", cpu=0.95),), False),
    ],
)
def test_runs_that_a_script_asked_for_count_and_the_script_does_not(
    runs: tuple[RunReport, ...], close: bool
) -> None:
    plan = planned(content(SCRIPT))

    assert plan.close(report(plan.request, {"script": End(cpu=9.5, runs=runs)})) is close


def test_programs_of_the_teachers_do_not_count() -> None:
    row = with_files(exercise('checker = { program = "check.py" }'), check__py="")
    plan = planned(content(row))

    assert not plan.close(report(plan.request, {"checker": End(cpu=9.5)}))


def test_a_compiler_counts_and_what_never_ran_does_not() -> None:
    plan = planned(content(exercise(language='"c"'), "main.c", "c"))

    assert plan.close(report(plan.request, {"compile": End(1, cpu=9.5)}))
    assert not plan.close(report(plan.request, {"compile": End(1, cpu=0.95)}))


def verdict(status: Status, grade: int) -> Verdict:
    """Return a verdict of one case."""
    cases = (CaseVerdict("a", status, grade, 20, 1.0, 1.0, 1),)
    return Verdict(status, grade, 20, f"a: {status}", cases, "notes")


@pytest.mark.parametrize(
    ("first", "second", "best"),
    [
        (verdict(Status.CPU_TIME, 0), verdict(Status.ACCEPTED, 20), 2),
        (verdict(Status.ACCEPTED, 20), verdict(Status.CPU_TIME, 0), 1),
        (verdict(Status.CPU_TIME, 5), verdict(Status.WRONG_ANSWER, 4), 1),
        (verdict(Status.CPU_TIME, 5), verdict(Status.WRONG_ANSWER, 5), 2),
        (verdict(Status.CPU_TIME, 5), verdict(Status.MEMORY, 5), 1),
        (verdict(Status.ACCEPTED, 20), verdict(Status.ACCEPTED, 20), 1),
    ],
)
def test_of_two_ends_the_better_counts_whole_and_is_marked(
    first: Verdict, second: Verdict, best: int
) -> None:
    found = better(first, second)

    chosen = second if best == 2 else first
    assert kinds.second_is_better(first, second) is (best == 2)
    assert found == replace(chosen, rerun=True, log=f"{kinds.RERUN}\n{chosen.log}")


def test_the_line_about_it_is_there_even_when_the_log_is_full() -> None:
    full = replace(verdict(Status.WRONG_ANSWER, 5), log="x" * TEXT_LIMIT)

    log = better(full, full).log

    assert log.startswith(kinds.RERUN)
    assert len(log.encode()) <= TEXT_LIMIT
