"""Every entry of the hostile suite, by what it is aimed at."""

from tests.hostile.corpus import compiling, escape, files, memory, time
from tests.hostile.entries import Entry

ENTRIES: tuple[Entry, ...] = (
    *time.ENTRIES,
    *memory.ENTRIES,
    *files.ENTRIES,
    *escape.ENTRIES,
    *compiling.ENTRIES,
)
