"""How attempts must end, as said on a command line, and whether they did."""

from collections.abc import Mapping

from commserver.reference.frames import Packet

STATUSES = (
    *("accepted", "wrong_answer", "presentation", "cpu_time", "real_time", "memory", "output"),
    *("runtime_error", "compile_error", "security", "cancelled"),
    "superseded",
)
CODES = ("404", "429", "500")
FAULTS = ("teacher", "system")
WHAT = "a status such as accepted, or an error such as 500 or 500/teacher"


def parsed(text: str) -> dict[str, str]:
    """Return what is said in `42=accepted,43=500/teacher`, by id.

    Raises:
        ValueError: it is no such list.
    """
    ends = {}
    for pair in text.split(","):
        id, equals, end = pair.strip().partition("=")
        code, slash, fault = end.partition("/")
        known = end in STATUSES or (code in CODES and (fault in FAULTS or not slash))
        if not (id and equals and known):
            raise ValueError(f"{pair.strip()!r} is not ID=END, where END is {WHAT}")
        if id in ends:
            raise ValueError(f"{id} is there twice")
        ends[id] = end
    return ends


def end_of(final: Packet) -> str:
    """Return how a final (EXECUTED or ERROR) says that a run ended, in the words of `parsed`."""
    if final["cmd"] == "EXECUTED":
        return str(final.get("status", ""))
    return f"{final.get('error_code', '')}/{final.get('fault', '')}"


def differences(expected: Mapping[str, str], finals: Mapping[str, Packet]) -> list[str]:
    """Return a sentence for each attempt that did not end as expected.

    finals: by the attempt's id, of those that have ended.
    """
    found = []
    for id, end in expected.items():
        final = finals.get(id)
        if final is None:
            found.append(f"{id} should have ended with {end}, and has not ended")
        elif end not in (end_of(final), end_of(final).partition("/")[0]):
            more = f" ({final['message']})" if final.get("message") else ""
            found.append(f"{id} should have ended with {end}, not with {end_of(final)}{more}")
    return found
