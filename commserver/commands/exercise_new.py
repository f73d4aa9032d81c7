"""What `commserver exercise new` begins with: small exercises that are right as they are."""

import re
from collections.abc import Mapping
from pathlib import Path

from commserver.services.exercise_folder import DEFINITION, INSTRUCTION

SUFFIX = {"python": ".py", "c": ".c"}


def files(folder: Path, kind: str, language: str) -> dict[str, bytes]:
    """Return a folder's files by their paths; the key is made of the folder's name."""
    key = re.sub(r"[^a-z0-9]+", "-", folder.absolute().name.lower()).strip("-") or "exercise"
    suffix = SUFFIX[language]
    texts = {
        "key": key,
        "language": language,
        "suffix": suffix,
        "main": f"main{suffix}",
        "memory": "64 MiB",
    }
    made = {name: _filled(text, texts) for name, text in _COMMON[kind].items()}
    made |= {
        f"{name}{suffix}": _filled(text, texts) for name, text in _SOLUTIONS[kind, language].items()
    }
    if kind == "script":
        made["grade.py"] = _SCRIPTS[language].lstrip("\n")
    return {name: text.encode() for name, text in made.items()}


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Return a text with `@name@` replaced; braces are TOML's and C's."""
    return re.sub(r"@(\w+)@", lambda found: values[found[1]], text).lstrip("\n")


_HEAD = """
format = 1
key = "@key@"                       # never changes: `exercise import` finds it by this
course = "my-course"
title = "@key@"                     # what students see
"""
_TAIL = """
[solutions]                         # each is run by `exercise check` and must get exactly this
"solutions/right@suffix@" = "accepted"
"""

_COMMON = {
    "tests": {
        DEFINITION: f"""{_HEAD}kind = "tests"
language = "@language@"
grade_max = 20
checker = "tokens"      # or exact, lines, {{ float = 1e-6 }}, {{ program = "check.py" }}
submission.files = ["@main@"]
limits = {{ cpu = "0.5 s", real = "10 s", memory = "@memory@" }}    # see `exercise calibrate`

[[cases]]
name = "the example"
input = "21\\n"
expected = "42\\n"
points = 5

[[cases]]
name = "negative numbers"
files = "cases/negative-*.in"       # each with its .out; they share the points
points = 15
hidden = true                       # students see the name, the verdict and the hint
hint = "What about numbers below zero?"
{_TAIL}"solutions/wrong@suffix@" = {{ verdict = "wrong_answer", grade = 5 }}
"solutions/loops@suffix@" = {{ verdict = "cpu_time", grade = 0 }}
""",
        INSTRUCTION: """
Read a whole number and print its double.
""",
        "cases/negative-1.in": "-4\n",
        "cases/negative-1.out": "-8\n",
        "cases/negative-2.in": "-1\n",
        "cases/negative-2.out": "-2\n",
    },
    "script": {
        DEFINITION: f"""{_HEAD}kind = "script"
script = "grade.py"                 # Python, whatever students write
language = "@language@"
grade_max = 20
submission.files = ["@main@"]
limits = {{ cpu = "1 s", memory = "@memory@", total = "20 s" }}    # of each call; of the whole
{_TAIL}"solutions/wrong@suffix@" = {{ verdict = "wrong_answer", grade = 10 }}
""",
        INSTRUCTION: """
Double a whole number.
""",
    },
    "pipeline": {
        DEFINITION: f"""{_HEAD}kind = "pipeline"
language = "@language@"
grade_max = 20
submission.files = ["@main@"]
limits = {{ cpu = "1 s", memory = "@memory@" }}    # of the player, in each case
programs = {{ player = "submission", judge = "judge.py" }}

[[stages]]                          # once a case; all in `run` at once
name = "play"
run = ["judge", "player"]
pipes = ["judge.1 -> player.0", "player.1 -> judge.0", "case.input -> judge.3"]
verdict = "judge"

[[cases]]                           # the largest number, the one to find, how many tries
name = "up to ten"
input = "10 7 4\\n"
points = 5

[[cases]]
name = "up to a thousand"
input = "1000 999 10\\n"
points = 15
hidden = true
hint = "Ten questions tell a thousand numbers apart."
{_TAIL}"solutions/wrong@suffix@" = {{ verdict = "wrong_answer", grade = 0 }}
""",
        INSTRUCTION: """
Find a number: read the largest that it can be, then guess. You are told `higher` or `lower` until
your guess is right.
""",
        "judge.py": """
\"\"\"Thinks of a number; judges whether the player finds it in so many tries.\"\"\"

from grader import judge

top, secret, tries = judge.case_ints()
judge.say(top)
for _ in range(tries):
    guess = judge.hear_int()
    if guess == secret:
        judge.accept()
    judge.say("higher" if guess < secret else "lower")
judge.reject(f"not found in {tries} tries")
""",
    },
}

_SCRIPTS = {
    "python": '''
"""Calls double() of main.py."""

from grader import call, check, error, expect

with check("the example", points=10):
    expect(call("main.double", 21), 42)

with check("no number", points=10, hidden=True, hint="What is the double of a word?"):
    expect(call("main.double", "word"), error("TypeError"))
''',
    "c": '''
"""Runs the program."""

from grader import check, expect, run

with check("the example", points=10):
    expect(run(stdin="21\\n").stdout.split(), ["42"])

with check("negative numbers", points=10, hidden=True, hint="What about numbers below zero?"):
    expect(run(stdin="-4\\n").stdout.split(), ["-8"])
''',
}

_DOUBLE_C = """
#include <stdio.h>

int main(void) {
    int number;
    if (scanf("%d", &number) != 1) return 1;
    printf("%d\\n", 2 * number);
}
"""
_UNSIGNED_C = """
#include <stdio.h>
#include <stdlib.h>

int main(void) {
    int number;
    if (scanf("%d", &number) != 1) return 1;
    printf("%d\\n", 2 * abs(number));
}
"""

_SOLUTIONS = {
    ("tests", "python"): {
        "solutions/right": "print(2 * int(input()))\n",
        "solutions/wrong": "print(2 * abs(int(input())))\n",
        "solutions/loops": "while True:\n    pass\n",
    },
    ("tests", "c"): {
        "solutions/right": _DOUBLE_C,
        "solutions/wrong": _UNSIGNED_C,
        "solutions/loops": "int main(void) {\n    volatile int on = 1;\n    while (on) {}\n}\n",
    },
    ("script", "python"): {
        "solutions/right": """
def double(number):
    if not isinstance(number, int):
        raise TypeError("not a whole number")
    return 2 * number
""",
        "solutions/wrong": """
def double(number):
    return 2 * number
""",
    },
    ("script", "c"): {"solutions/right": _DOUBLE_C, "solutions/wrong": _UNSIGNED_C},
    ("pipeline", "python"): {
        "solutions/right": """
low, high = 1, int(input())
while True:
    guess = (low + high) // 2
    print(guess, flush=True)
    try:
        answer = input()
    except EOFError:
        break
    if answer == "higher":
        low = guess + 1
    else:
        high = guess - 1
""",
        "solutions/wrong": """
input()
while True:
    print(1, flush=True)
    try:
        input()
    except EOFError:
        break
""",
    },
    ("pipeline", "c"): {
        "solutions/right": """
#include <stdio.h>
#include <string.h>

int main(void) {
    int low = 1, high;
    char answer[16];
    if (scanf("%d", &high) != 1) return 1;
    for (;;) {
        int guess = (low + high) / 2;
        printf("%d\\n", guess);
        fflush(stdout);
        if (scanf("%15s", answer) != 1) return 0;
        if (strcmp(answer, "higher") == 0) low = guess + 1;
        else high = guess - 1;
    }
}
""",
        "solutions/wrong": """
#include <stdio.h>

int main(void) {
    char word[16];
    while (scanf("%15s", word) == 1) {
        puts("1");
        fflush(stdout);
    }
}
""",
    },
}
