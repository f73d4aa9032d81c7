"""Figures."""

from collections.abc import Sequence
from statistics import quantiles


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return p50, p95 and p99 in milliseconds."""
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {f"p{n}": rounded(cuts[n - 1] * 1000) for n in (50, 95, 99)}


def rounded(value: float) -> float:
    """Return `value` as it is printed."""
    return round(value, 2)
