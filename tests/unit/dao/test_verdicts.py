"""The record that is kept of a verdict."""

from dataclasses import replace

import msgspec

from commserver.core.execution import (
    CaseReport,
    ExecutionReport,
    Flag,
    ProcessReport,
    RunReport,
    StageReport,
)
from commserver.core.verdicts import CaseVerdict, Cause, Completed, Failure, Status, Verdict
from commserver.dao.verdicts import (
    NOTES_LIMIT,
    RUNS_KEPT,
    MeasuredCase,
    MeasuredStage,
    Measurement,
    VerdictRecord,
    without_texts,
)

VERDICT = Verdict(
    Status.CPU_TIME,
    3,
    10,
    log="first line\nsecond\x00 line",
    cases=(CaseVerdict("one", Status.CPU_TIME, 3, 10, cpu=1.0, real=1.5, memory=1 << 20),),
    notes="the hidden \x1bcase",
    rerun=True,
)
PLAYER = ProcessReport(
    "player",
    exit_code=-9,
    cpu=1.0,
    real=1.5,
    memory=1 << 20,
    flags=Flag.CPU | Flag.REAL,
    stopped=True,
    ended=1.5,
)
JUDGE = ProcessReport(
    "judge",
    exit_code=0,
    cpu=0.25,
    real=1.75,
    memory=4096,
    ended=1.75,
    runs=(RunReport("run", 1, 0.5, 0.75, 8192, Flag.OUTPUT),),
)
REPORT = ExecutionReport(
    prepare=(StageReport("compile", (ProcessReport("compile", 0, 2.0, 3.0, 4096),)),),
    cases=(CaseReport("one", (StageReport("play", (PLAYER, JUDGE)),)),),
    image="sha256:abc",
    container="c0ffee",
    isolation="nested",
    runner="1",
)


def test_a_record_has_all_that_was_measured() -> None:
    record = VerdictRecord.of(Completed(VERDICT, REPORT))

    compiler = Measurement("compile", 0, 2.0, 3.0, 4096, flags=0)
    assert record.prepare == (MeasuredStage("compile", (compiler,)),)
    player = Measurement("player", -9, 1.0, 1.5, 1 << 20, flags=5, stopped=True, ended=1.5)
    run = Measurement("run", 1, 0.5, 0.75, 8192, flags=16)
    judge = Measurement("judge", 0, 0.25, 1.75, 4096, flags=0, ended=1.75, runs=(run,))
    stage = MeasuredStage("play", (player, judge))
    assert record.measured == (MeasuredCase("one", (stage,)),)
    assert (record.image, record.container, record.isolation, record.runner) == (
        "sha256:abc",
        "c0ffee",
        "nested",
        "1",
    )
    assert record.verdict is not None
    assert (record.verdict.cases, record.verdict.rerun) == (VERDICT.cases, True)


def test_a_record_has_clean_and_bounded_texts() -> None:
    record = VerdictRecord.of(Completed(replace(VERDICT, notes="n" * 2 * NOTES_LIMIT), REPORT))
    short = VerdictRecord.of(Completed(VERDICT))

    assert record.verdict is not None
    assert short.verdict is not None
    assert (short.verdict.log, short.verdict.notes) == (
        "first line\nsecond line",
        "the hidden case",
    )
    assert len(record.verdict.notes.encode()) <= NOTES_LIMIT


def test_a_record_has_no_more_runs_than_anybody_reads() -> None:
    asks = replace(JUDGE, runs=JUDGE.runs * 150)
    stage = StageReport("grade", (asks,))
    report = replace(REPORT, cases=(CaseReport("one", (stage, stage)),))

    record = VerdictRecord.of(Completed(VERDICT, report))

    first, second = [stage.processes[0] for stage in record.measured[0].stages]
    assert (len(first.runs), first.more_runs) == (150, 0)
    assert (len(second.runs), second.more_runs) == (RUNS_KEPT - 150, 300 - RUNS_KEPT)


def test_a_record_survives_json() -> None:
    record = VerdictRecord.of(Completed(VERDICT, REPORT))

    assert msgspec.json.decode(msgspec.json.encode(record), type=VerdictRecord) == record


def test_a_record_of_before_pipelines_can_still_be_read() -> None:
    old = (
        b'{"verdict":{"status":"cpu_time","grade":3,"grade_max":10,"log":"it","cases":[]},'
        b'"image":"sha256:abc","container":"c0ffee","isolation":"nested","runner":"1",'
        b'"compile":null,"cases":[{"name":"0","exit_code":0,"cpu":0.5,"real":1.0,"memory":4096,'
        b'"flags":0}]}'
    )

    record = msgspec.json.decode(old, type=VerdictRecord)

    assert record.verdict == Verdict(Status.CPU_TIME, 3, 10, "it")
    assert record.cases == (Measurement("0", 0, 0.5, 1.0, 4096, flags=0),)
    assert (record.measured, record.details) == ((), "")


def test_a_verdict_without_a_report_has_a_record() -> None:
    assert VerdictRecord.of(Completed(Verdict(Status.ACCEPTED, 10, 10))) == VerdictRecord(
        Verdict(Status.ACCEPTED, 10, 10)
    )


def test_a_failure_has_a_record_if_there_is_more_to_say_of_it() -> None:
    failure = Failure(Cause.EXERCISE, "the grader broke", details="Traceback\x00 …\nKeyError")

    record = VerdictRecord.failed(failure)

    assert record == VerdictRecord(None, details="Traceback …\nKeyError")
    assert VerdictRecord.failed(replace(failure, details="")) is None


def test_only_the_texts_are_taken_out_of_a_record() -> None:
    record = VerdictRecord.of(Completed(VERDICT, REPORT))

    blank = without_texts(msgspec.json.encode(record).decode())

    assert blank is not None
    assert record.verdict is not None
    expected = replace(record, verdict=replace(record.verdict, log="", notes=""))
    assert msgspec.json.decode(blank, type=VerdictRecord) == expected
    assert '"log":""' in blank
    assert '"notes":""' in blank


def test_a_record_of_a_version_without_notes_gets_none() -> None:
    assert without_texts('{"verdict":{"log":"it"},"more":1}') == '{"verdict":{"log":""},"more":1}'


def test_of_a_failure_nothing_is_kept_without_its_details() -> None:
    record = VerdictRecord(None, details="Traceback")

    assert without_texts(msgspec.json.encode(record).decode()) is None
