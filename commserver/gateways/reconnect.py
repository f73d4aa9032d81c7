"""How long to wait before dialling again."""

import random
from collections.abc import Callable


class BackOff:
    """Jittered exponential pauses: each step is twice the one before, none above `most` seconds.

    The jitter keeps many clients of one restarted server from coming back all at once.
    """

    def __init__(
        self, first: float, most: float, jitter: Callable[[], float] = random.random
    ) -> None:
        self._first = min(first, most)
        self._most = most
        self._jitter = jitter
        self._next = self._first

    def pause(self) -> float:
        """Return the seconds to wait now: between half and all of the present step."""
        step = self._next
        self._next = min(step * 2, self._most)
        return step * (0.5 + self._jitter() / 2)

    def reset(self) -> None:
        """Start from the first step again: it worked."""
        self._next = self._first
