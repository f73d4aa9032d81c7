"""Limits as a teacher writes them: texts with units, for all languages or for one."""

import math
import re
from collections.abc import Iterable, Iterator

import msgspec

from commserver.core.execution import KIB, MIB, Limits

DEFAULT_LIMITS = Limits()
DEFAULT_TOTAL = 10.0  # seconds, of a whole correction by a script
MAXIMA = Limits(
    cpu=60.0, real=300.0, memory=1024 * MIB, output=16 * MIB, file_size=64 * MIB, processes=256
)
REAL_FACTOR = 3  # a real-time limit that is not given: so many times the cpu limit, plus …
REAL_EXTRA = 2.0  # … so many seconds

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")
_SECONDS = {"s": 1.0, "ms": 0.001, "min": 60.0}
_BYTES = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": 1024 * MIB}
_UNITS: dict[str, dict[str, float] | dict[str, int]] = {
    "cpu": _SECONDS,
    "real": _SECONDS,
    "memory": _BYTES,
    "output": _BYTES,
    "file_size": _BYTES,
    "total": _SECONDS,
}


class LanguageLimits(msgspec.Struct, frozen=True):
    """Limits of one case, or of one call: with units, absent = what counts otherwise."""

    cpu: str | None = None
    real: str | None = None
    memory: str | None = None
    output: str | None = None
    file_size: str | None = None
    processes: int | None = None


class LimitTexts(LanguageLimits, frozen=True):
    """Limits for every language, and what is different in one.

    total: of a whole correction by a script.
    """

    total: str | None = None
    python: LanguageLimits | None = None
    c: LanguageLimits | None = None


NAMES = LanguageLimits.__struct_fields__


def problems(texts: LimitTexts, languages: Iterable[str], *, script: bool) -> list[str]:
    """Return what is wrong with them: what cannot be read, or is more than this site allows."""
    found = list(_problems("limits", texts, (*NAMES, "total")))
    if texts.total is not None and not script:
        found.append("limits.total: is for exercises of kind script")
    for name in set(LimitTexts.__struct_fields__) - {*NAMES, "total"}:
        own = getattr(texts, name)
        if own is not None and name not in languages:
            found.append(f"limits.{name}: the exercise is not in {name}")
        elif own is not None:
            found += _problems(f"limits.{name}", own, NAMES)
    return found


def resolve(texts: LimitTexts, language: str) -> Limits:
    """Return the limits of one case in this language, in seconds and bytes; they must be right."""
    own = getattr(texts, language, None) or LanguageLimits()
    said = {
        name: value
        for name in NAMES
        if (value := _first(getattr(own, name), getattr(texts, name))) is not None
    }
    values = {
        name: value if isinstance(value, int) else _quantity(value, _UNITS[name])
        for name, value in said.items()
    }
    cpu = values.get("cpu") or DEFAULT_LIMITS.cpu
    return Limits(
        cpu=cpu,
        real=values.get("real") or cpu * REAL_FACTOR + REAL_EXTRA,
        memory=int(values.get("memory") or DEFAULT_LIMITS.memory),
        output=int(values.get("output") or DEFAULT_LIMITS.output),
        file_size=int(values.get("file_size") or DEFAULT_LIMITS.file_size),
        processes=int(values.get("processes") or DEFAULT_LIMITS.processes),
    )


def total(texts: LimitTexts) -> float:
    """Return how long a whole correction may take, seconds; it must be right."""
    return _quantity(texts.total, _SECONDS) or DEFAULT_TOTAL if texts.total else DEFAULT_TOTAL


def spelled(name: str, value: float) -> str:
    """Return a limit as a teacher would write it in TOML."""
    if name == "processes":
        return str(int(value))
    if _UNITS[name] is _SECONDS:
        return f'"{value:g} s"'
    for unit in ("GiB", "MiB", "KiB"):
        if value % _BYTES[unit] == 0:
            return f'"{int(value) // _BYTES[unit]} {unit}"'
    return f'"{int(value)} B"'


def _problems(at: str, texts: LanguageLimits, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        value = getattr(texts, name)
        if isinstance(value, int):
            amount: float | None = value
            if value < 1:
                yield f"{at}.{name}: must be 1 or more"
        elif value is not None:
            units = _UNITS[name]
            amount = _quantity(value, units)
            if amount is None:
                least = min(units, key=lambda unit: units[unit])
                wanted = f"a quantity of 1 {least} or more, in one of {', '.join(units)}"
                yield f"{at}.{name}: {value!r} is not {wanted}"
        else:
            amount = None
        most = MAXIMA.real if name == "total" else getattr(MAXIMA, name)
        if amount is not None and amount > most:
            shown = spelled(name, most).strip('"')
            yield f"{at}.{name}: more than this site's {shown}"


def _first(own: str | int | None, general: str | int | None) -> str | int | None:
    return general if own is None else own


def _quantity(text: str, units: dict[str, float] | dict[str, int]) -> float | None:
    """Return an amount in seconds or bytes; None when it is none, or less than the least unit."""
    match = _QUANTITY.fullmatch(text.strip())
    value = float(match[1]) * units.get(match[2], 0) if match else 0.0
    return value if min(units.values()) <= value < math.inf else None
