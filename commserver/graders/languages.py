"""What each language needs to be compiled and started: a table, nothing else knows languages."""

from dataclasses import dataclass

from commserver.core.execution import KIB, MIB, Limits

COMPILE_LIMITS = Limits(cpu=10.0, real=20.0, memory=512 * MIB, output=64 * KIB, processes=64)


@dataclass(frozen=True, slots=True)
class Language:
    """One language.

    image: our image that has it. main: the file that is run when an exercise does not say.
    compile: the compiler's argv without sources; empty for interpreted languages. `link` follows
    the sources. program: the artifact that a compilation leaves.
    run: argv, where `{main}` is the file that is run.
    sources: the suffixes that are given to the compiler.
    """

    name: str
    image: str
    main: str
    run: tuple[str, ...]
    compile: tuple[str, ...] = ()
    link: tuple[str, ...] = ()
    program: str = ""
    sources: tuple[str, ...] = ()


LANGUAGES = {
    language.name: language
    for language in (
        Language(
            name="python",
            image="python",
            main="main.py",
            run=("/usr/bin/python3", "{main}"),
        ),
        Language(
            name="c",
            image="c",
            main="main.c",
            compile=("/usr/bin/gcc", "-O2", "-std=gnu17", "-Wall", "-pipe", "-o", "program"),
            link=("-lm",),
            program="program",
            run=("./program",),
            sources=(".c",),
        ),
    )
}
