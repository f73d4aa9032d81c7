"""The full record of how a run was judged, kept with it so that a verdict can be explained."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from commserver.core.execution import CaseReport, ProcessReport, RunReport, StageReport
from commserver.core.text import TEXT_LIMIT, clean_text
from commserver.core.verdicts import Completed, Failure, Verdict

RUNS_KEPT = 200  # of the runs that graders asked for, of a whole record
NOTES_LIMIT = 4 * TEXT_LIMIT  # bytes of what only a teacher may read


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one process used: seconds, bytes, and the sum of the `Flag`s it met.

    ended: seconds from the start of its stage. runs: what it asked for; `more_runs` are not kept.
    """

    name: str
    exit_code: int
    cpu: float
    real: float
    memory: int
    flags: int
    stopped: bool = False
    ended: float = 0.0
    runs: tuple["Measurement", ...] = ()
    more_runs: int = 0


@dataclass(frozen=True, slots=True)
class MeasuredStage:
    """What the processes of one stage used."""

    name: str
    processes: tuple[Measurement, ...]


@dataclass(frozen=True, slots=True)
class MeasuredCase:
    """What one case used, stage by stage as far as it went."""

    name: str
    stages: tuple[MeasuredStage, ...]


@dataclass(frozen=True, slots=True)
class VerdictRecord:
    """A verdict with what it was measured by, without any file that came of it.

    verdict: None for a run that could not be graded; then `details` say why, to its teacher.
    image: digest. `prepare` and `measured` are empty when nothing was run.
    compile, cases: instead of these two, in records of before pipelines.
    """

    verdict: Verdict | None
    image: str = ""
    container: str = ""
    isolation: str = ""
    runner: str = ""
    compile: Measurement | None = None
    cases: tuple[Measurement, ...] = ()
    prepare: tuple[MeasuredStage, ...] = ()
    measured: tuple[MeasuredCase, ...] = ()
    details: str = ""

    @classmethod
    def of(cls, completed: Completed) -> "VerdictRecord":
        """Return the record of a run that was judged, with every text in it cleaned."""
        judged, report = completed.verdict, completed.report
        cases = tuple(replace(case, name=clean_text(case.name)) for case in judged.cases)
        log, notes = clean_text(judged.log), clean_text(judged.notes, NOTES_LIMIT)
        verdict = replace(judged, log=log, notes=notes, cases=cases)
        if report is None:
            return cls(verdict)
        scribe = _Scribe()
        return cls(
            verdict,
            image=clean_text(report.image),
            container=clean_text(report.container),
            isolation=clean_text(report.isolation),
            runner=clean_text(report.runner),
            prepare=scribe.stages(report.prepare),
            measured=tuple(map(scribe.case, report.cases)),
        )

    @classmethod
    def failed(cls, failure: Failure) -> "VerdictRecord | None":
        """Return what its teacher may read of a run that could not be graded, None for nothing."""
        details = clean_text(failure.details, NOTES_LIMIT)
        return cls(None, details=details) if details else None


def without_texts(record: str) -> str | None:
    """Return the JSON of a record without what people could read, None if it is none.

    All else stays as it is: a record may be of a version that had other fields.
    """
    try:
        plain = msgspec.json.decode(record, type=dict[str, Any])
        verdict = msgspec.convert(plain.get("verdict"), dict[str, Any])
    except msgspec.MsgspecError:
        return None
    blank = {"log": "", **({"notes": ""} if "notes" in verdict else {})}
    return msgspec.json.encode(plain | {"verdict": verdict | blank}).decode()


class _Scribe:
    """Writes measures down, with no more than `RUNS_KEPT` runs among them."""

    def __init__(self) -> None:
        self._room = RUNS_KEPT

    def case(self, case: CaseReport) -> MeasuredCase:
        return MeasuredCase(clean_text(case.name), self.stages(case.stages))

    def stages(self, stages: Iterable[StageReport]) -> tuple[MeasuredStage, ...]:
        return tuple(
            MeasuredStage(clean_text(stage.name), tuple(map(self._process, stage.processes)))
            for stage in stages
        )

    def _process(self, process: ProcessReport) -> Measurement:
        runs = tuple(map(_measurement, process.runs[: self._room]))
        self._room -= len(runs)
        return replace(
            _measurement(process),
            ended=process.ended,
            runs=runs,
            more_runs=len(process.runs) - len(runs),
        )


def _measurement(one: ProcessReport | RunReport) -> Measurement:
    return Measurement(
        name=clean_text(one.name),
        exit_code=one.exit_code,
        cpu=one.cpu,
        real=one.real,
        memory=one.memory,
        flags=int(one.flags),
        stopped=one.stopped,
    )
