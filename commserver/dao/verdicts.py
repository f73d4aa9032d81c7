"""The full record of how a run was judged, kept with it so that a verdict can be explained."""

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from commserver.core.execution import Completed, ProcessReport, Verdict
from commserver.core.text import clean_text


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one process used: seconds, bytes, and the sum of the `Flag`s it met."""

    name: str
    exit_code: int
    cpu: float
    real: float
    memory: int
    flags: int


@dataclass(frozen=True, slots=True)
class VerdictRecord:
    """A verdict with what it was measured by, without any output of the student's program.

    image: digest. `compile` and `cases` are empty when nothing was run.
    """

    verdict: Verdict
    image: str = ""
    container: str = ""
    isolation: str = ""
    runner: str = ""
    compile: Measurement | None = None
    cases: tuple[Measurement, ...] = ()

    @classmethod
    def of(cls, completed: Completed) -> "VerdictRecord":
        """Return the record of a run that was judged, with every text in it cleaned."""
        judged, report = completed.verdict, completed.report
        cases = tuple(replace(case, name=clean_text(case.name)) for case in judged.cases)
        verdict = replace(judged, log=clean_text(judged.log), cases=cases)
        if report is None:
            return cls(verdict)
        return cls(
            verdict,
            image=clean_text(report.image),
            container=clean_text(report.container),
            isolation=clean_text(report.isolation),
            runner=clean_text(report.runner),
            compile=_measurement(report.compile) if report.compile else None,
            cases=tuple(map(_measurement, report.cases)),
        )


def without_log(record: str) -> str | None:
    """Return the JSON of a record without what its student could read, None if it is none.

    All else stays as it is: a record may be of a version that had other fields.
    """
    try:
        plain = msgspec.json.decode(record, type=dict[str, Any])
        verdict = msgspec.convert(plain.get("verdict"), dict[str, Any])
    except msgspec.MsgspecError:
        return None
    return msgspec.json.encode(plain | {"verdict": verdict | {"log": ""}}).decode()


def _measurement(process: ProcessReport) -> Measurement:
    return Measurement(
        name=clean_text(process.name),
        exit_code=process.exit_code,
        cpu=process.cpu,
        real=process.real,
        memory=process.memory,
        flags=int(process.flags),
    )
