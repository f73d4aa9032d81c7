"""What an entry of the hostile suite is: a submission, and the verdict that it must get."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from commserver.core.verdicts import Status
from commserver.graders.content import Content

GRADE_MAX = 100

SHORT: Mapping[str, str] = {"cpu": "0.3 s", "real": "1 s"}
"""Limits of what has to be ended by one of them."""

MAIN = {"python": "main.py", "c": "main.c"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One hostile or broken submission.

    name: of the test. source: the only file, or files by name.
    status: the verdict, and `elsewhere` the one where user namespaces are forbidden, if that is
    another. limits: as a teacher writes them. given, expected: what it reads, and has to print to
    be accepted: a program that finds a way out prints what it found, and so fails.
    log: what the student must be told, a part of it.
    """

    name: str
    source: str | Mapping[str, str] = field(repr=False)
    status: Status = Status.ACCEPTED
    elsewhere: Status | None = None
    language: str = "python"
    limits: Mapping[str, str | int] = field(default_factory=dict)
    given: str = ""
    expected: str = "nothing\n"
    log: str = ""

    @property
    def files(self) -> dict[str, str]:
        """What is handed in."""
        if isinstance(self.source, str):
            return {MAIN[self.language]: self.source}
        return dict(self.source)

    def wanted(self, form: str) -> tuple[Status, int]:
        """The verdict and the grade that it must get in a form of sandbox."""
        status = self.elsewhere if self.elsewhere and form == "fresh-uid" else self.status
        return status, GRADE_MAX if status is Status.ACCEPTED else 0

    def content(self) -> Content:
        """It as the server freezes it: the files and the exercise."""
        return Content(self.language, GRADE_MAX, tuple(sorted(self.files.items())), self.exercise())

    def exercise(self) -> str:
        """The exercise that it is handed in for, as its teacher wrote it."""
        limits = {"cpu": "1 s", "real": "5 s", "memory": "64 MiB", **self.limits}
        written = ", ".join(f"{key} = {json.dumps(value)}" for key, value in limits.items())
        return f"""format = 1
key = "{self.name}"
course = "hostile-{self.language}"
title = "{self.name}"
kind = "tests"
language = "{self.language}"
grade_max = {GRADE_MAX}
limits = {{ {written} }}

[[cases]]
name = "one"
input = {json.dumps(self.given)}
expected = {json.dumps(self.expected)}
points = {GRADE_MAX}
"""


RIGHT = {
    "python": Entry(
        "right", "print(int(input()) * 2)\n", given="21\n", expected="42\n", language="python"
    ),
    "c": Entry(
        "right",
        "#include <stdio.h>\n"
        'int main(void) { int n; return scanf("%d", &n) == 1 ? printf("%d\\n", 2 * n) < 0 : 1; }\n',
        given="21\n",
        expected="42\n",
        language="c",
    ),
}
"""The submission that must be right after whatever was handed in before, by language."""
