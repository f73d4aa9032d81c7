"""The record that is kept of a verdict."""

from dataclasses import replace

import msgspec

from commserver.core.execution import (
    CaseVerdict,
    Completed,
    ExecutionReport,
    Flag,
    ProcessReport,
    Status,
    Verdict,
)
from commserver.dao.verdicts import Measurement, VerdictRecord, without_log

VERDICT = Verdict(
    Status.CPU_TIME,
    3,
    10,
    log="first line\nsecond\x00 line",
    cases=(CaseVerdict("one", Status.CPU_TIME, 3, 10, cpu=1.0, real=1.5, memory=1 << 20),),
)
REPORT = ExecutionReport(
    compile=None,
    cases=(
        ProcessReport(
            "one",
            exit_code=-9,
            cpu=1.0,
            real=1.5,
            memory=1 << 20,
            flags=Flag.CPU | Flag.REAL,
            stdout=b"the student's secret",
        ),
    ),
    image="sha256:abc",
    container="c0ffee",
    isolation="nested",
    runner="1",
)


def test_a_record_has_all_that_was_measured() -> None:
    record = VerdictRecord.of(Completed(VERDICT, REPORT))

    assert record.cases == (Measurement("one", -9, 1.0, 1.5, 1 << 20, flags=5),)
    assert (record.image, record.container, record.isolation, record.runner) == (
        "sha256:abc",
        "c0ffee",
        "nested",
        "1",
    )
    assert record.verdict.cases == VERDICT.cases


def test_a_record_has_no_output_and_a_clean_log() -> None:
    record = VerdictRecord.of(Completed(VERDICT, REPORT))

    assert b"secret" not in msgspec.json.encode(record)
    assert record.verdict.log == "first line\nsecond line"


def test_a_record_survives_json() -> None:
    record = VerdictRecord.of(Completed(VERDICT, REPORT))

    assert msgspec.json.decode(msgspec.json.encode(record), type=VerdictRecord) == record


def test_a_verdict_without_a_report_has_a_record() -> None:
    assert VerdictRecord.of(Completed(Verdict(Status.ACCEPTED, 10, 10))) == VerdictRecord(
        Verdict(Status.ACCEPTED, 10, 10)
    )


def test_only_the_log_is_taken_out_of_a_record() -> None:
    record = VerdictRecord.of(Completed(VERDICT, REPORT))

    blank = without_log(msgspec.json.encode(record).decode())

    assert blank is not None
    expected = replace(record, verdict=replace(record.verdict, log=""))
    assert msgspec.json.decode(blank, type=VerdictRecord) == expected
    assert '"log":""' in blank
