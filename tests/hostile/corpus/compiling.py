"""Sources that are aimed at the compiler, and names that are aimed at its command line."""

from collections.abc import Mapping

from commserver.core.verdicts import Status
from tests.hostile.entries import Entry

NOTHING = '#include <stdio.h>\nint main(void) { puts("nothing"); }\n'
"""A program that is right, for what must not make a difference."""


def fails(name: str, source: str | Mapping[str, str], log: str) -> Entry:
    """What does not compile, for a reason that the student is told."""
    return Entry(name, source, Status.COMPILE_ERROR, language="c", log=log)


def harmless(name: str, source: str | Mapping[str, str], expected: str = "nothing\n") -> Entry:
    """What compiles and runs as if nothing were strange about it."""
    return Entry(name, source, language="c", expected=expected)


STOPPED = "the compiler was stopped: "
# What gcc says of a part of it that was ended by a signal.
TOO_LARGE = "File size limit exceeded signal terminated program as"
TOO_DEEP = "Segmentation fault signal terminated program cc1"

_INCLUDES = (
    harmless("includes-standard-input", '#include "/dev/stdin"\n' + NOTHING),
    fails("includes-etc-passwd", '#include "/etc/passwd"\n' + NOTHING, "root:x:0:0"),
    fails("includes-etc-shadow", '#include "/etc/shadow"\n' + NOTHING, "Permission denied"),
    # The kernel says that these are empty, and the compiler believes it.
    harmless("includes-its-environment", '#include "/proc/self/environ"\n' + NOTHING),
    harmless("includes-its-memory", '#include "/proc/self/mem"\n' + NOTHING),
    fails("includes-the-runners-environment", '#include "/proc/1/environ"\n' + NOTHING, "denied"),
    fails("includes-a-folder", '#include "/"\n' + NOTHING, "fatal error: /: "),
    fails("includes-itself", "#include __FILE__\n", "from main.c:1"),
    fails("includes-itself-twice", "#include __FILE__\n#include __FILE__\n", STOPPED + "output"),
    fails(
        "two-that-include-each-other",
        {"main.c": '#include "other.h"\n' + NOTHING, "other.h": '#include "main.c"\n'},
        "from main.c:1",
    ),
    # Where hidden tests lie meanwhile, too. A compiler gives up where it may not even look.
    Entry(
        "looks-for-what-is-kept",
        """
#include <stdio.h>
#if __has_include("/box/keep/0") || __has_include("/box/keep/1") || __has_include("../keep/1")
int main(void) { puts("found"); }
#else
int main(void) { puts("nothing"); }
#endif
""",
        elsewhere=Status.COMPILE_ERROR,
        language="c",
    ),
    fails(
        "embeds-dev-zero",
        'asm(".incbin \\"/dev/zero\\"");\n' + NOTHING,
        "unable to include `/dev/zero",
    ),
    fails("embeds-etc-shadow", 'asm(".incbin \\"/etc/shadow\\"");\n' + NOTHING, "/etc/shadow"),
)

_BOMBS = (
    fails("initialiser-of-4-gigabytes", "char a[4ULL << 30] = {1};\n" + NOTHING, TOO_LARGE),
    fails("initialiser-of-100-megabytes", "char a[100 << 20] = {1};\n" + NOTHING, TOO_LARGE),
    fails("fill-of-the-assembler", 'asm(".fill 0x7fffffff, 8, 0x90");\n' + NOTHING, TOO_LARGE),
    fails(
        "repetition-of-the-assembler",
        'asm(".rept 1000000000\\n.quad 0\\n.endr");\n' + NOTHING,
        STOPPED + "memory",
    ),
    fails(
        "macro-of-the-assembler-calls-itself",
        'asm(".macro a\\na\\na\\n.endm\\na");\n' + NOTHING,
        "macros nested too deeply",
    ),
    fails(
        "flood-of-errors", "\n".join(f"x{i} y{i} z{i};" for i in range(20_000)), STOPPED + "output"
    ),
    fails("one-long-error", "#error " + "x" * 200_000, STOPPED + "output"),
    fails("deep-parentheses", f"int x = {'(' * 200_000}1{')' * 200_000};\n" + NOTHING, TOO_DEEP),
    fails("deep-braces", f"int main(void) {{ {'{' * 200_000}{'}' * 200_000} }}\n", TOO_DEEP),
    fails("array-of-arrays", f"int a{'[1000000]' * 20};\n" + NOTHING, "exceeds maximum"),
    fails("stops-half-way", "int main(void) { /* ", "unterminated comment"),
)

_EXTENSIONS = (
    harmless(
        "pragmas-that-ask-for-a-plugin",
        """
#pragma GCC plugin "./evil.so"
#pragma GCC optimize ("O0", "-fplugin=./evil.so", "-wrapper=./evil")
"""
        + NOTHING,
    ),
    fails(
        "pragma-that-reads-what-was-compiled-before",
        '#pragma GCC pch_preprocess "/etc/passwd"\n' + NOTHING,
        "pch_preprocess",
    ),
    # None of them is what the compiler is told, or looks for here.
    harmless(
        "what-would-build-it-otherwise",
        {
            "main.c": '#include "beside.h"\n' + NOTHING,
            "beside.h": "",
            "beside.h.gch": "no precompiled header",
            "Makefile": "all:\n\tfalse\n",
            "specs": "*cc1:\n+ -Devil\n",
            "lib/specs": "*cc1:\n+ -Devil\n",
            "as": "#!/bin/sh\nexit 1\n",
            "ld": "#!/bin/sh\nexit 1\n",
            "cc1": "#!/bin/sh\nexit 1\n",
            "collect2": "#!/bin/sh\nexit 1\n",
            "stdio.h": "#error evil\n",
            "main.s": "evil\n",
            "main.o": "evil\n",
            "libm.a": "evil\n",
            "libc.so": "evil\n",
            "a.out": "evil\n",
        },
    ),
    # Not even when the compiler is done is anything of it run.
    harmless(
        "constructors-run-with-the-program",
        NOTHING + '__attribute__((constructor)) static void early(void) { fputs("", stdout); }\n',
    ),
)

NAMES = (
    "@args.c",
    ";rm -rf.c",
    "$(id).c",
    "`id`.c",
    "a\nb.c",
    "*.c",
    "sub/-o.c",
    "\x1b[31m.c",
)
"""Names that a shell, or a careless program, would take for something else."""

_NAMES = (
    harmless(
        "names-that-are-not-what-they-seem",
        {
            "main.c": "#include <stdio.h>\n"
            + "".join(f"int f{i}(void);\n" for i in range(len(NAMES)))
            + 'int main(void) { printf("%d\\n", '
            + " + ".join(f"f{i}()" for i in range(len(NAMES)))
            + "); }\n",
            **{name: f"int f{i}(void) {{ return 1; }}\n" for i, name in enumerate(NAMES)},
            "@args": "-o /tmp/evil -fplugin=evil.so",
            ";touch evil": "",
        },
        f"{len(NAMES)}\n",
    ),
    # Without a name it has no suffix, as compilers see it: it would go to the linker as a script.
    harmless("name-that-is-only-a-suffix", {"main.c": NOTHING, ".c": "int more;\n"}),
    *(
        fails(f"named-{what}", {"main.c": NOTHING, name: NOTHING}, "a file cannot be called")
        for what, name in {
            "as-an-option": "-o/../x.c",
            "as-a-plugin": "-fplugin=evil.c",
            "above": "../x.c",
            "as-the-program": "program/x.c",
        }.items()
    ),
)

ENTRIES: tuple[Entry, ...] = (*_INCLUDES, *_BOMBS, *_EXTENSIONS, *_NAMES)

GROWING = (
    fails("includes-dev-zero", '#include "/dev/zero"\n' + NOTHING, STOPPED + "memory"),
    fails("includes-dev-urandom", '#include "/dev/urandom"\n' + NOTHING, STOPPED + "memory"),
    fails("assembles-dev-zero", 'asm(".include \\"/dev/zero\\"");\n' + NOTHING, STOPPED + "memory"),
)

BURNING = (
    fails(
        "bomb-of-macros",
        "\n".join(f"#define A{i + 1} {f'A{i} ' * 8}" for i in range(12))
        + "\n#define A0 1+\nint x = A12 0;",
        STOPPED + "cpu_time",
    ),
)
