"""Sources that are aimed at the compiler."""

import pytest

from commserver.core.execution import ExecutionReport, Flag, Limits, ProcessReport
from tests.integration.engine.conftest import Lab

pytestmark = pytest.mark.docker

LIMITS = Limits(cpu=1.0, real=4.0, memory=128 << 20, output=64 << 10)


def failed(report: ExecutionReport) -> ProcessReport:
    """The compilation, which must have failed before any case was run."""
    assert report.compile is not None
    assert not report.compile.ok
    assert report.cases == ()
    assert report.compile.real < 4.5
    return report.compile


async def test_a_program_is_compiled_and_run(lab: Lab) -> None:
    report = await lab.compile(
        '#include <stdio.h>\nint main(int n, char **v) { printf("%s\\n", v[1]); return 3; }',
        ("a",),
        ("b c",),
    )

    assert report.compile is not None
    assert report.compile.ok
    assert [(case.exit_code, case.stdout) for case in report.cases] == [(3, b"a\n"), (3, b"b c\n")]


async def test_an_endless_source_is_bounded(lab: Lab) -> None:
    compilation = failed(
        await lab.compile('#include "/dev/zero"\nint main;', (), compile_limits=LIMITS)
    )

    assert compilation.flags & (Flag.CPU | Flag.MEMORY)


async def test_a_source_that_waits_is_bounded(lab: Lab) -> None:
    limits = Limits(cpu=1.0, real=1.0, memory=128 << 20)
    compilation = failed(
        await lab.compile(
            '#include "/dev/stdin"\n#include "/proc/self/fd/0"\nx', (), compile_limits=limits
        )
    )

    assert compilation.exit_code == 1  # standard input is empty: nothing to wait for


async def test_files_of_the_image_are_no_secret_and_those_of_the_runner_are(lab: Lab) -> None:
    compilation = failed(
        await lab.compile('#include "/etc/shadow"\n#include "/box/keep/1"\n.incbin', ())
    )

    assert b"root:" not in compilation.stderr
    assert b"denied" in compilation.stderr


BOMBS = {
    "self": "#include __FILE__\n#include __FILE__\n",
    "macros": "\n".join(
        f"#define A{i + 1} A{i} A{i} A{i} A{i} A{i} A{i} A{i} A{i}" for i in range(12)
    )
    + "\n#define A0 1+\nint x = A12 0;",
    "initialiser": "char a[4ULL << 30] = {1}; int main(void) { return a[0]; }",
    "assembler": 'asm(".fill 0x7fffffff, 8, 0x90"); int main(void) { return 0; }',
    "incbin": 'asm(".incbin \\"/dev/zero\\""); int main(void) { return 0; }',
    "errors": "\n".join(f"x{i} y{i} z{i};" for i in range(20_000)),
}


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_is_bounded(lab: Lab, name: str) -> None:
    compilation = failed(await lab.compile(BOMBS[name], (), compile_limits=LIMITS))

    assert len(compilation.stderr) <= 64 << 10
    assert compilation.flags or compilation.exit_code > 0
