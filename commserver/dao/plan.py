"""What migrations will do, read from their statements before any of them is executed."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

NAME = r'(?:IF\s+(?:NOT\s+)?EXISTS\s+)?(?:ONLY\s+)?(?:\w+\.)?"?(\w+)"?'
_CREATE_TABLE = re.compile(rf"CREATE\s+TABLE\s+{NAME}", re.IGNORECASE)
_REFERENCES = re.compile(rf"\bREFERENCES\s+{NAME}", re.IGNORECASE)
_CREATE_INDEX = re.compile(rf"CREATE\s+(?:UNIQUE\s+)?INDEX\s+.*?\sON\s+{NAME}", re.I | re.S)
_WHOLE = re.compile(rf"(?:ALTER|DROP)\s+TABLE\s+{NAME}", re.IGNORECASE)
_ROWS = re.compile(rf"(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM)\s+{NAME}", re.IGNORECASE)
_LITERAL = re.compile(r"'(?:[^']|'')*'|--[^\n]*")

# Whoever waits for a lock on PostgreSQL makes everybody wait who comes later, the platform too.
LOCK_TIMEOUT = 5.0  # seconds

UNKNOWN = "what this statement locks is not known: it may be whole tables until the end"
FILE = "the whole file for others that write, until the end; those that read go on"


@dataclass(frozen=True, slots=True)
class Step:
    """One revision that is not applied yet.

    locks: what exists already and others cannot use as before until the migration has ended.
    named: the platform's tables that its statements name.
    """

    series: str
    revision: str
    summary: str
    statements: tuple[str, ...]
    locks: tuple[str, ...]
    named: tuple[str, ...]


@dataclass(slots=True)
class Written:
    """A file of SQL as Alembic writes one: a statement at a time."""

    statements: list[str] = field(default_factory=list)

    def write(self, text: str) -> None:
        """Keep a statement; what is only a remark is dropped."""
        statement = text.strip()
        if not statement.startswith("--"):
            self.statements.append(statement)

    def flush(self) -> None:
        """Nothing is held back."""


def described(steps: Sequence[Step], dialect: str) -> list[str]:
    """Return a plan in lines for people."""
    if not steps:
        return ["Nothing to do: every migration is applied."]
    lines: list[str] = []
    for step in steps:
        lines.append(f"{step.series} {step.revision}: {step.summary}")
        for statement in step.statements:
            lines += ["", *(f"    {line}" for line in statement.splitlines())]
        locked = step.locks or ("nothing that exists: it makes new tables",)
        lines += ["", *(f"  locks {one}" for one in locked)]
        if step.named and step.series != "platform":
            lines.append(f"  TOUCHES THE PLATFORM'S {', '.join(step.named)}: do not run this")
        lines.append("")
    lines.append("All of it is one transaction, which happens whole or not at all.")
    if dialect == "postgresql":
        lines.append(
            f"A lock that is not to be had in {LOCK_TIMEOUT:g} s ends it, nothing changed."
        )
    if not any(step.named for step in steps):
        lines.append("No statement names a table of the platform's.")
    elif all(step.series == "platform" for step in steps if step.named):
        lines.append("The platform's tables are new; nothing of the platform's exists yet.")
    return lines


def named(statements: Iterable[str], tables: Collection[str]) -> tuple[str, ...]:
    """Return which of these tables the statements name anywhere outside of a literal."""
    words = {word for one in statements for word in re.findall(r"\w+", _LITERAL.sub("", one))}
    return tuple(sorted({word.lower() for word in words} & set(tables)))


def locks(statements: Iterable[str], made: set[str], dialect: str) -> tuple[str, ...]:
    """Return what the statements lock of what exists, a sentence each.

    made: the tables that earlier statements of the same transaction make; those of these are added.
    """
    found: dict[str, None] = {}
    for statement in statements:
        found |= dict.fromkeys(_locked(statement, made))
    if dialect == "sqlite":
        return (FILE,)
    return tuple(found)


def _locked(statement: str, made: set[str]) -> Iterator[str]:
    for pattern, sentence in (
        (_CREATE_INDEX, "{}: others can read and not write until the end (SHARE)"),
        (_WHOLE, "{}: others can neither read nor write until the end (ACCESS EXCLUSIVE)"),
        (_ROWS, "{}: the rows that it writes (ROW EXCLUSIVE)"),
    ):
        if found := pattern.match(statement):
            if found[1] not in made:
                yield sentence.format(found[1])
            break
    else:
        if (found := _CREATE_TABLE.match(statement)) is None:
            yield UNKNOWN
            return
        made.add(found[1])
    for other in _REFERENCES.findall(statement):
        if other not in made:
            yield f"{other}: others can read and not write until the end (SHARE ROW EXCLUSIVE)"
