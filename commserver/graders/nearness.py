"""Runs that ended so close to their cpu limit that another machine might have said otherwise."""

from collections.abc import Iterator

from commserver.core.execution import (
    ExecutionReport,
    ExecutionRequest,
    Process,
    ProcessReport,
    Role,
    RunReport,
    Stage,
    StageReport,
)

CLOSE_FROM, CLOSE_TO = 0.9, 1.1  # parts of a cpu limit


def close(request: ExecutionRequest, report: ExecutionReport) -> bool:
    """Return whether a learner's program ended by itself between 0.9 and 1.1 of its cpu limit.

    One that still ran at 1.1 was stopped, and is no such case.
    """
    return any(
        not measured.stopped
        and CLOSE_FROM * process.limits.cpu <= measured.cpu <= CLOSE_TO * process.limits.cpu
        for process, measured in _learners(request, report)
    )


def _learners(
    request: ExecutionRequest, report: ExecutionReport
) -> Iterator[tuple[Process, ProcessReport | RunReport]]:
    yield from _of_stages(request.prepare, report.prepare)
    for case, became in zip(request.cases, report.cases, strict=False):  # none after a failure
        yield from _of_stages(case.stages, became.stages)


def _of_stages(
    stages: tuple[Stage, ...], reports: tuple[StageReport, ...]
) -> Iterator[tuple[Process, ProcessReport | RunReport]]:
    for stage, report in zip(stages, reports, strict=False):  # as far as it went
        for process, measured in zip(stage.processes, report.processes, strict=True):
            if process.role is Role.LEARNER:
                yield process, measured
            runs = {run.name: run for run in process.may_run if run.role is Role.LEARNER}
            yield from ((runs[run.name], run) for run in measured.runs if run.name in runs)
