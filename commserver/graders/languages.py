"""What each language needs to be compiled and started: a table, nothing else knows languages."""

from collections.abc import Collection
from dataclasses import dataclass

from commserver.core.execution import KIB, MIB, Limits

COMPILE_LIMITS = Limits(cpu=10.0, real=20.0, memory=512 * MIB, output=64 * KIB, processes=64)


@dataclass(frozen=True, slots=True)
class Language:
    """One language.

    main: the file that is run when an exercise does not say.
    compile: the compiler's argv, which ends with the program it makes; sources follow, then `link`.
    Empty for interpreted languages. program: the file that a compilation leaves.
    run: argv, where `{main}` is the file that is run.
    sources: the suffixes of its files; a compiler is given these.
    call: argv of what calls a function of the student's, empty where nothing can.
    """

    name: str
    main: str
    run: tuple[str, ...]
    sources: tuple[str, ...]
    compile: tuple[str, ...] = ()
    link: tuple[str, ...] = ()
    program: str = ""
    call: tuple[str, ...] = ()

    def start(self, main: str) -> tuple[str, ...]:
        """Return the argv that runs `main`, or what was compiled."""
        return tuple(part.format(main=main) for part in self.run)

    def starter(self) -> tuple[str, ...]:
        """Return what stands before the file to be run, or what starts what was compiled."""
        return tuple(part for part in self.run if part != "{main}")


LANGUAGES = {
    language.name: language
    for language in (
        Language(
            name="python",
            main="main.py",
            run=("/usr/bin/python3", "{main}"),
            sources=(".py",),
            call=("/usr/bin/python3", "-I", "/opt/commserver/call.pyc"),
        ),
        Language(
            name="c",
            main="main.c",
            compile=("/usr/bin/gcc", "-O2", "-std=gnu17", "-Wall", "-pipe", "-o", "program"),
            link=("-lm",),
            program="program",
            run=("./program",),
            sources=(".c",),
        ),
    )
}

# What our images have; Python is in each, because the runner needs it.
IMAGES = {"python": frozenset({"python"}), "c": frozenset({"python", "c"})}


def image(languages: Collection[str]) -> str:
    """Return the smallest of our images that has all of these languages, "" when none has."""
    fitting = [name for name, has in IMAGES.items() if has.issuperset(languages)]
    return min(fitting, key=lambda name: len(IMAGES[name]), default="")


def language_of(path: str) -> str:
    """Return in which language a file is written by its name, "" when that is not known."""
    return next((x.name for x in LANGUAGES.values() if path.endswith(x.sources)), "")
