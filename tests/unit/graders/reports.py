"""What a sandbox would have reported, made up."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from commserver.core.execution import (
    NO_FLAG,
    Artifact,
    ArtifactReport,
    CaseReport,
    ExecutionReport,
    ExecutionRequest,
    Flag,
    ProcessReport,
    RunReport,
    Stage,
    StageReport,
    WorkFile,
)
from commserver.core.request_check import check


@dataclass(frozen=True, slots=True)
class End:
    """How a process ended; by itself and well, unless something else is said."""

    exit_code: int = 0
    flags: Flag = NO_FLAG
    cpu: float = 0.25
    stopped: bool = False
    ended: float = 0.5
    runs: tuple[RunReport, ...] = ()


def run(name: str = "run", exit_code: int = 0, flags: Flag = NO_FLAG, **more: float) -> RunReport:
    """Return the report of a run that was asked for."""
    cpu, real = more.get("cpu", 0.25), more.get("real", 0.5)
    return RunReport(name, exit_code, cpu, real, 1024, flags, stopped=bool(flags))


def report(
    request: ExecutionRequest,
    ends: Mapping[str, End] = {},
    left: Mapping[str, bytes] = {},
    lost: Collection[str] = (),
) -> ExecutionReport:
    """Return what became of a request in which every process is right, except as is said.

    ends: by the process's name, in one case only by `0/program`. left: what came of artifacts, by
    name, likewise. lost: artifacts that are work files and are not there.
    """
    check(request)
    prepare = _stages(request.prepare, "", ends, left, lost)
    if len(prepare) < len(request.prepare) or not all(stage.ok for stage in prepare):
        return ExecutionReport(prepare, ())
    cases = (
        CaseReport(case.name, _stages(case.stages, f"{case.name}/", ends, left, lost))
        for case in request.cases
    )
    return ExecutionReport(prepare, tuple(cases))


def _stages(
    stages: tuple[Stage, ...],
    at: str,
    ends: Mapping[str, End],
    left: Mapping[str, bytes],
    lost: Collection[str],
) -> tuple[StageReport, ...]:
    reports: list[StageReport] = []
    for stage in stages:
        processes = []
        for process in stage.processes:
            end = ends.get(f"{at}{process.name}") or ends.get(process.name) or End()
            processes.append(
                ProcessReport(
                    process.name,
                    end.exit_code,
                    end.cpu,
                    0.5,
                    1024,
                    end.flags,
                    end.stopped,
                    end.ended,
                    end.runs,
                )
            )
        artifacts = []
        for pipe in stage.pipes:
            if isinstance(pipe.write, Artifact):
                name = pipe.write.name
                content = left.get(f"{at}{name}", left.get(name, b""))
                missing = isinstance(pipe.read, WorkFile) and name in lost
                kept = content if pipe.write.returned and not missing else None
                artifacts.append(ArtifactReport(name, len(content), kept, missing))
        reports.append(StageReport(stage.name, tuple(processes), tuple(artifacts)))
        if not reports[-1].ok:
            break
    return tuple(reports)
