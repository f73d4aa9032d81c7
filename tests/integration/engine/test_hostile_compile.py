"""Sources that are aimed at the compiler."""

import pytest

from commserver.core.execution import Case, Flag, Limits, Placement, Process
from commserver.engine.frames import Walls
from tests.integration.engine.conftest import Compiled, Lab, Ran, alone, ran

pytestmark = pytest.mark.docker

LIMITS = Limits(cpu=1.0, real=20.0, memory=128 << 20, output=64 << 10)


def failed(compiled: Compiled) -> Ran:
    """The compilation, which must have failed before any case was run."""
    assert not compiled.compilation.report.ok
    assert compiled.cases == ()
    return compiled.compilation


async def test_a_program_is_compiled_and_run(lab: Lab) -> None:
    compiled = await lab.compile(
        '#include <stdio.h>\nint main(int n, char **v) { printf("%s\\n", v[1]); return 3; }',
        ("a",),
        ("b c",),
    )

    assert (compiled.compilation.end, compiled.compilation.missing) == ((0, 0), ())
    assert [(case.end, case.stdout) for case in compiled.cases] == [
        ((3, 0), b"a\n"),
        ((3, 0), b"b c\n"),
    ]


async def test_an_endless_source_is_bounded(lab: Lab) -> None:
    compilation = failed(
        await lab.compile('#include "/dev/zero"\nint main;', (), compile_limits=LIMITS)
    )

    assert compilation.report.flags & (Flag.CPU | Flag.MEMORY)


async def test_nothing_but_the_image_can_be_included(lab: Lab) -> None:
    compilation = failed(
        await lab.compile(
            '#if __has_include("/box/keep/1")\n#error found\n#endif\n'
            '#include "/dev/stdin"\n#include "/etc/shadow"\n',
            (),
        )
    )

    assert compilation.report.exit_code == 1  # standard input is empty: nothing to wait for
    assert b"root:" not in compilation.stderr
    denied = {
        Walls.NAMESPACES: b"/etc/shadow: Permission denied",  # the other is not even there
        Walls.UIDS: b"/box/keep/1: Permission denied",
    }
    assert denied[lab.walls] in compilation.stderr
    assert b"found" not in compilation.stderr


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


async def test_bombs_are_bounded(lab: Lab) -> None:
    bombs = [
        Process("gcc", ("gcc", "-o", "main", "main.c"), LIMITS, (Placement(name, "main.c"),))
        for name in BOMBS
    ]

    report = await lab.execute(
        *(Case(name, (alone(gcc),)) for name, gcc in zip(BOMBS, bombs, strict=True)),
        files={**BOMBS},
        image="c",
    )

    for case in report.cases:
        compilation = ran(case)
        assert (case.name, compilation.report.ok) == (case.name, False)
        assert compilation.report.flags or compilation.report.exit_code > 0
        assert len(compilation.stderr) <= 64 << 10
