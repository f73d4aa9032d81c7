"""What is told of an attempt later: everything that is known, and what is not known any more."""

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from commserver.core.execution import (
    MIB,
    CaseReport,
    ExecutionReport,
    Flag,
    ProcessReport,
    RunReport,
    StageReport,
)
from commserver.core.finals import account, backend
from commserver.core.jobs import SWEEP, AttemptId, Origin, OwnerId, Recipient, RunId
from commserver.core.states import State
from commserver.core.verdicts import Broken, CaseVerdict, Cause, Completed, Failure, Status, Verdict
from commserver.errors import NotFound, StoreError
from commserver.services.erase_service import EraseService
from commserver.services.explain_service import RUNS, ExplainService, RunStory, Step
from tests.fakes import FakeClock, completed
from tests.integration.services.site import Site

ORIGIN = Origin("backend", "main", "42")
MAIN = backend("main")
LOG, NOTES = "a log of the student's", "the hidden case read 42\nand another line"


@pytest.fixture
def explain(site: Site) -> ExplainService:
    return ExplainService(site.database, site.daos, site.files)


async def handed_in(site: Site, source: str = "print(42)", *, student: str = "ada") -> AttemptId:
    return await site.attempt(await site.exercise(), {"main.py": source}, student=student)


async def submitted(
    site: Site, attempt: AttemptId, tell: tuple[Recipient, ...] = (), origin: Origin = ORIGIN
) -> RunId:
    return (await site.exec.submit(attempt, origin, tell)).run


async def only(explain: ExplainService, attempt: AttemptId) -> RunStory:
    """Return the story of the attempt's only run."""
    [run] = (await explain.explain(attempt)).runs
    return run


def step(run: RunStory, name: str) -> Step:
    """Return the only step of this name."""
    [found] = [step for step in run.steps if step.name == name]
    return found


def says(run: RunStory, name: str) -> list[str]:
    return [step.says for step in run.steps if step.name == name]


def judged() -> Completed:
    cases = (
        CaseVerdict("small", Status.ACCEPTED, 5, 5, 0.02, 0.03, 9 * MIB),
        CaseVerdict("large", Status.CPU_TIME, 0, 5, 1.0, 1.1, MIB),
    )
    small = ProcessReport("program", 0, 0.02, 0.03, 9 * MIB)
    large = ProcessReport("program", -9, 1.0, 1.1, MIB, Flag.CPU | Flag.OUTPUT, stopped=True)
    ran = (
        CaseReport("0", (StageReport("run", (small,)),)),  # whatever it is called
        CaseReport("1", (StageReport("run", (large,)),)),
    )
    report = ExecutionReport((), ran, "sha256:abc", "box-7", "fresh", "1")
    return Completed(Verdict(Status.CPU_TIME, 10, 20, LOG, cases, NOTES), report)


async def test_a_whole_life_is_told_step_by_step_with_its_times(
    site: Site, explain: ExplainService, clock: FakeClock
) -> None:
    other = await handed_in(site, "other", student="grace")
    await submitted(site, other)
    attempt = await handed_in(site)
    run = await submitted(site, attempt, (MAIN,))
    began = clock.utc()
    student = account(OwnerId(str(await site.admin.account("ada"))))
    clock.advance(3.0)
    await site.lease()
    lease = await site.lease()
    clock.advance(0.4)
    await site.runs.started(lease.id)
    clock.advance(0.6)
    await site.runs.finished(lease, judged())
    ended = clock.utc()
    soon, later = (ended + timedelta(seconds=after) for after in (0.25, 0.5))
    pushed = [(student, 1, soon), (MAIN, 1, later)]
    seen = ended + timedelta(seconds=20.25)
    await site.database.write(lambda c: site.daos.notices.pushed(c, pushed))
    await site.database.write(lambda c: site.daos.notices.delivered(c, [(student, 1)], seen))

    story = await explain.explain(attempt)

    ada = await site.admin.account("ada")
    assert (story.attempt, story.account, story.username) == (attempt, ada, "ada")
    assert (story.exercise, story.about) == (1, [])
    [told] = story.runs
    assert (told.run, told.state, told.purpose, told.erased) == (run, State.DONE, "submit", False)
    assert step(told, "received") == Step("received", "asked for by backend main, as 42", began)
    assert step(told, "content").says == (
        "python, main.py (9 bytes), as it was handed in; "
        f"sha256 {(await site.row(run)).job.content}"
    )
    assert step(told, "queued").says == (
        "among the interactive runs, as number 2 of all that ever came in; as far as is known, one "
        "run for the same image stood before it then"
    )
    leased = step(told, "leased")
    assert leased.says == f"by {lease.offer.runner} on engine {lease.offer.engine}"
    assert leased.after == pytest.approx(3.0)
    started = step(told, "started")  # our own slots begin at once
    assert (started.says, started.at, started.after) == ("its runner began", leased.at, 0.0)
    assert step(told, "container").says == (
        "box-7, image commserver/python sha256:abc, isolation fresh, runner 1"
    )
    assert step(told, "verdict").says == "cpu_time, 10 of 20"
    assert says(told, "case") == [
        "small: accepted, 5 of 5 points; 0.02 s of cpu, 0.03 s, 9.0 MiB; exit code 0, "
        "limits met: none",
        "large: cpu_time, 0 of 5 points; 1.00 s of cpu, 1.10 s, 1.0 MiB; exit code -9, "
        "limits met: cpu, output, ended by us",
    ]
    assert step(told, "notes").says == "2 lines for the teacher: see --texts"
    stored = step(told, "stored")
    assert (stored.says, stored.at) == ("stored as done", ended)
    assert [(s.name, s.says, s.after) for s in told.steps[-4:]] == [
        ("pushed", "the student: final 1 was pushed", pytest.approx(0.25)),
        ("acknowledged", "the student: final 1 was acknowledged", pytest.approx(20.0)),
        ("pushed", "backend main: final 1 was pushed", pytest.approx(0.5)),
        ("acknowledged", "backend main: final 1 was not acknowledged yet: it is still owed", None),
    ]
    assert not any(text.encode() in msgspec.json.encode(story) for text in (LOG, "hidden case"))


async def test_a_try_that_began_is_told_with_its_moment(
    site: Site, explain: ExplainService, clock: FakeClock
) -> None:
    attempt = await handed_in(site)
    await submitted(site, attempt)
    lease = await site.lease()
    clock.advance(0.5)
    await site.runs.started(lease.id)
    clock.advance(0.5)
    await site.runs.finished(lease, completed())

    told = await only(explain, attempt)

    moments = [s.at for s in told.steps if s.at]
    assert moments == sorted(moments)


async def test_what_waits_is_told_with_who_stood_before_it(
    site: Site, explain: ExplainService, clock: FakeClock
) -> None:
    for student in ("grace", "alan", "edsger"):
        await submitted(site, await handed_in(site, student=student))
    done = await site.lease()
    await site.runs.finished(done, completed())
    called_off = await handed_in(site, student="barbara")
    await submitted(site, called_off)
    await site.exec.cancel(called_off)
    other = await submitted(site, await handed_in(site, student="dennis"))
    lane = """UPDATE executions SET requires = '[["image","=",["c"]]]' WHERE id = :run"""
    await site.sql(lane, run=other)
    clock.advance(1.0)
    attempt = await handed_in(site)
    await submitted(site, attempt)

    told = await only(explain, attempt)

    assert "2 runs for the same image stood before it" in step(told, "queued").says
    assert step(told, "leased").says.startswith("not yet, or a slot has it at this moment")
    assert step(told, "verdict").says == "none yet: the row says queued"
    assert not says(told, "stored")


async def test_tries_that_broke_are_told_with_why_the_last_did(
    site: Site, explain: ExplainService, clock: FakeClock
) -> None:
    attempt = await handed_in(site)
    await submitted(site, attempt)
    for number in range(3):
        lease = await site.lease()
        failure = Failure(Cause.CONTAINER, f"it vanished {number}", f"box-{number}")
        await site.runs.finished(lease, Broken(failure))
        clock.advance(600.0)

    told = await only(explain, attempt)

    assert told.state is State.FAILED
    assert "3 of at most 3 tries broke; the last: it vanished 2" in says(told, "started")
    assert step(told, "container").says == "box-2"
    assert step(told, "verdict").says == (
        "it could not be graded: it vanished 2 (container, the system's fault)"
    )


async def test_what_did_not_compile_has_cases_that_used_nothing(
    site: Site, explain: ExplainService
) -> None:
    attempt = await handed_in(site)
    await submitted(site, attempt)
    whole = judged()
    assert whole.report
    compiler = StageReport("compile", (ProcessReport("compile", 1, 0.5, 0.6, 2 * MIB),))
    report = replace(whole.report, prepare=(compiler,), cases=())
    await site.runs.finished(await site.lease(), replace(whole, report=report))

    told = await only(explain, attempt)

    assert says(told, "process") == [
        "compile: 0.50 s of cpu, 0.60 s, 2.0 MiB; exit code 1, limits met: none"
    ]
    assert says(told, "case") == [
        "small: accepted, 5 of 5 points",
        "large: cpu_time, 0 of 5 points",
    ]


async def told_of(site: Site, explain: ExplainService, completed: Completed) -> RunStory:
    """Return the story of a run that was judged like this."""
    attempt = await handed_in(site)
    await submitted(site, attempt)
    await site.runs.finished(await site.lease(), completed)
    return await only(explain, attempt)


async def test_programs_that_ran_together_are_told_one_by_one(
    site: Site, explain: ExplainService
) -> None:
    player = ProcessReport("player", 0, 0.1, 0.5, 4 * MIB, ended=0.5)
    judge = ProcessReport("judge", 1, 0.2, 0.6, 8 * MIB, ended=0.6)
    report = ExecutionReport((), (CaseReport("0", (StageReport("play", (player, judge)),)),))
    cases = (CaseVerdict("a game", Status.WRONG_ANSWER, 0, 5, 0.1, 0.5, 4 * MIB),)
    verdict = Verdict(Status.WRONG_ANSWER, 0, 20, "", cases, rerun=True)

    told = await told_of(site, explain, Completed(verdict, report))

    assert step(told, "verdict").says == (
        "wrong_answer, 0 of 20; close to a time limit, so run twice: the better end counts"
    )
    assert says(told, "case") == ["a game: wrong_answer, 0 of 5 points"]
    assert says(told, "process") == [
        "play, player: 0.10 s of cpu, 0.50 s, 4.0 MiB; exit code 0, limits met: none; "
        "ended 0.50 s after the stage began",
        "play, judge: 0.20 s of cpu, 0.60 s, 8.0 MiB; exit code 1, limits met: none; "
        "ended 0.60 s after the stage began",
    ]


async def test_the_runs_that_a_script_asked_for_are_told(
    site: Site, explain: ExplainService
) -> None:
    runs = tuple(RunReport("call", 0, 0.1, 0.1, MIB) for _ in range(12))
    script = ProcessReport("script", 0, 0.2, 2.0, 9 * MIB, runs=runs)
    report = ExecutionReport((), (CaseReport("0", (StageReport("grade", (script,)),)),))
    cases = tuple(CaseVerdict(name, Status.ACCEPTED, 5, 5, 0.0, 0.0, 0) for name in "ab")

    told = await told_of(
        site, explain, Completed(Verdict(Status.ACCEPTED, 20, 20, "", cases), report)
    )

    assert says(told, "case") == [f"{name}: accepted, 5 of 5 points" for name in "ab"]
    assert says(told, "process") == [
        "grade, script: 0.20 s of cpu, 2.00 s, 9.0 MiB; exit code 0, limits met: none"
    ]
    call = "0.10 s of cpu, 0.10 s, 1.0 MiB; exit code 0, limits met: none"
    assert says(told, "run") == [
        *[f"grade, script asked for call: {call}"] * 10,
        "grade, script asked for 2 more",
    ]


async def test_what_was_recorded_before_pipelines_is_told_as_it_was(
    site: Site, explain: ExplainService
) -> None:
    attempt = await handed_in(site)
    await submitted(site, attempt)
    await site.runs.finished(await site.lease(), judged())
    case = '{"name":"small","status":"accepted","earned":5,"points":5,"cpu":0,"real":0,"memory":0}'
    used = '{"name":"0","exit_code":0,"cpu":0.5,"real":0.6,"memory":4096,"flags":0}'
    record = (
        f'{{"verdict":{{"status":"accepted","grade":5,"grade_max":5,"log":"","cases":[{case}]}},'
        f'"container":"box-7","compile":{used},"cases":[{used}]}}'
    )
    await site.sql("UPDATE executions SET verdict = :record", record=record)

    told = await only(explain, attempt)

    measures = "0.50 s of cpu, 0.60 s, 4 KiB; exit code 0, limits met: none"
    assert says(told, "case") == [
        f"compilation: {measures}",
        f"small: accepted, 5 of 5 points; {measures}",
    ]


async def test_texts_are_told_to_who_asks_for_them(site: Site, explain: ExplainService) -> None:
    attempt = await handed_in(site)
    await submitted(site, attempt)
    await site.runs.finished(await site.lease(), judged())

    [told] = (await explain.explain(attempt, texts=True)).runs

    assert (step(told, "log").says, step(told, "notes").says) == (LOG, NOTES)


async def test_why_a_grader_broke_is_told_to_who_asks_for_texts(
    site: Site, explain: ExplainService
) -> None:
    attempt = await handed_in(site)
    run = await submitted(site, attempt)
    failure = Failure(Cause.EXERCISE, "the grader broke", details="Traceback …\nKeyError: 'x'")
    await site.runs.finished(await site.lease(), Broken(failure))

    plain = await only(explain, attempt)
    [told] = (await explain.explain(attempt, texts=True)).runs

    assert step(plain, "details").says == "2 lines for the teacher: see --texts"
    assert step(told, "details").says == failure.details
    assert step(told, "verdict").says == (
        "it could not be graded: the grader broke (exercise, the teacher's fault)"
    )
    assert (await site.row(run)).ending == replace(failure, details="")


async def test_a_run_that_was_refused_says_why_and_was_never_queued(
    site: Site, explain: ExplainService
) -> None:
    attempt = await site.attempt(await site.exercise(None))
    await submitted(site, attempt)

    told = await only(explain, attempt)

    assert step(told, "verdict").says == (
        "refused at once, never queued: the exercise has no grader (not_found, the teacher's fault)"
    )
    assert not says(told, "queued")
    assert not says(told, "leased")
    assert says(told, "pushed") == [
        "the student: final 1 was not pushed yet: nobody of theirs has been connected"
    ]


async def test_a_run_that_was_cancelled_says_so(site: Site, explain: ExplainService) -> None:
    attempt = await handed_in(site)
    await submitted(site, attempt)
    await site.exec.cancel(attempt)

    told = await only(explain, attempt)

    assert step(told, "verdict").says == "none: it was cancelled before one"
    assert step(told, "stored").says == "stored as cancelled"
    assert says(told, "pushed")


async def test_a_run_that_gave_way_is_told_after_the_newer_one(
    site: Site, explain: ExplainService
) -> None:
    attempt = await handed_in(site, "first")
    old = await submitted(site, attempt, (MAIN,))
    lease = await site.lease()
    await site.edit(attempt, "second")
    new = await submitted(site, attempt)
    await site.runs.release(lease.id)

    newer, older = (await explain.explain(attempt)).runs

    assert (newer.run, older.run) == (new, old)
    assert step(older, "verdict").says == ("none: something newer was handed in and took its place")
    assert says(older, "tell") == [
        "the student: nothing is said of a run that gave way to a newer one"
    ]
    assert says(older, "pushed") == [
        "backend main: final 1 was not pushed yet: nobody of theirs has been connected"
    ]


async def test_what_the_sweep_found_says_so(site: Site, explain: ExplainService) -> None:
    attempt = await handed_in(site)
    await submitted(site, attempt, origin=Origin(SWEEP, "", str(attempt)))

    assert step(await only(explain, attempt), "received").says == (
        "found by the sweep: nobody had asked for it"
    )


async def test_an_erased_run_says_that_it_was_erased(
    site: Site, explain: ExplainService, clock: FakeClock
) -> None:
    attempt = await handed_in(site)
    await submitted(site, attempt)
    await site.runs.finished(await site.lease(), judged())
    eraser = EraseService(site.database, site.daos, site.files, clock)
    await eraser.erase(await site.admin.account("ada"))

    told = await only(explain, attempt)

    assert told.erased
    assert [s.name for s in told.steps] == ["received", "content", "stored"]
    assert step(told, "content").says.startswith("erased on demand")
    assert step(told, "stored").says == "ended: done"


async def test_what_is_not_kept_any_more_is_said(
    site: Site, explain: ExplainService, clock: FakeClock
) -> None:
    attempt = await handed_in(site)
    run = await submitted(site, attempt, (MAIN,))
    await site.runs.finished(await site.lease(), judged())
    await site.files.remove((await site.row(run)).job.content)
    await site.sql("DELETE FROM notices")
    await site.sql("UPDATE executions SET verdict = NULL")

    told = await only(explain, attempt)

    assert "its files are not kept any more" in step(told, "content").says
    assert step(told, "container").says == (
        "the record of the verdict is not kept any more: no container, image or case"
    )
    assert says(told, "tell") == [
        "the student: no final is kept any more, if there ever was one",
        "backend main: no final is kept any more, if there ever was one",
    ]


async def test_a_record_of_another_version_does_not_hide_the_rest(
    site: Site, explain: ExplainService
) -> None:
    attempt = await handed_in(site)
    await submitted(site, attempt)
    await site.runs.finished(await site.lease(), judged())
    await site.sql("""UPDATE executions SET verdict = '{"new": 1}'""")

    told = await only(explain, attempt)

    assert "cannot be read by this version" in step(told, "container").says
    assert step(told, "verdict").says == "cpu_time, 10 of 20"


async def test_files_that_the_disk_has_damaged_are_said_to_be(
    site: Site, explain: ExplainService
) -> None:
    attempt = await handed_in(site)
    run = await submitted(site, attempt)
    name = (await site.row(run)).job.content
    (site.state / "files" / name[:2] / name[2:4] / name).write_bytes(b"rot")

    assert "its files cannot be read" in step(await only(explain, attempt), "content").says


async def test_an_attempt_without_a_run_says_what_is_known(
    site: Site, explain: ExplainService, clock: FakeClock
) -> None:
    old = await handed_in(site)
    assert (await explain.explain(old)).about == [
        "no server has ever been started on this database"
    ]
    await site.database.write(lambda c: site.daos.baseline.ensure(c, at=clock.utc()))
    new = await handed_in(site)

    [about] = (await explain.explain(old)).about
    assert "it belongs to the baseline" in about
    [about] = (await explain.explain(new)).about
    assert "nobody has asked for it" in about


async def test_an_attempt_that_the_platform_has_removed_is_still_told(
    site: Site, explain: ExplainService
) -> None:
    attempt = await handed_in(site)
    await submitted(site, attempt)
    await site.sql("DELETE FROM codes")
    await site.sql("DELETE FROM user_exercises")

    story = await explain.explain(attempt)

    assert story.about == ["the platform has no such attempt any more"]
    assert story.account is None
    assert len(story.runs) == 1


@pytest.mark.parametrize("number", [999, 0, 2**63 - 1])
async def test_an_unknown_attempt_is_told_as_such(
    site: Site, explain: ExplainService, number: int
) -> None:
    with pytest.raises(NotFound, match=f"there is no attempt {number}"):
        await explain.explain(AttemptId(number))


async def test_of_very_many_runs_the_newest_are_told(
    site: Site, explain: ExplainService, clock: FakeClock
) -> None:
    attempt = await handed_in(site)
    for number in range(RUNS + 2):
        await site.edit(attempt, f"print({number})")
        run = await submitted(site, attempt)
        await site.runs.finished(await site.lease(), completed())
        clock.advance(1.0)

    story = await explain.explain(attempt)

    assert len(story.runs) == RUNS
    assert story.runs[0].run == run
    assert story.about == [f"it has more runs: the newest {RUNS} are shown"]


async def test_a_database_that_is_away_is_no_unknown_attempt(
    site: Site, explain: ExplainService
) -> None:
    await site.database.close()

    with pytest.raises(StoreError):
        await explain.explain(AttemptId(1))
