"""How often is too often: counters of fixed size. Sans-I/O; `now` is monotonic seconds."""

from collections import OrderedDict, deque
from collections.abc import Hashable

KEYS = 10_000  # peers that one counter remembers; beyond it forgets whom it heard of longest ago


class TokenBucket:
    """Lets `rate` a second through, and up to `burst` at once after a rest."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = now

    def take(self, now: float) -> bool:
        """Return whether one more may pass, and count it if so."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Persistence:
    """Tells who was refused once from who goes on and on.

    limit: seconds of refusals, none of them more than `PAUSE` after the one before, that are too
    many.
    """

    PAUSE = 1.0  # seconds without a refusal, and it begins anew

    __slots__ = ("_last", "_limit", "_since")

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._since = self._last = float("-inf")

    def refused(self, now: float) -> bool:
        """Count a refusal; True when they have gone on for too long."""
        if now - self._last > self.PAUSE:
            self._since = now
        self._last = now
        return now - self._since >= self._limit


class Failures:
    """Counts the failures of many peers: who had `most` within `period` seconds is over the limit.

    Remembers at most `keys` peers, and of each only its newest failures.
    """

    def __init__(self, most: int, period: float, keys: int = KEYS) -> None:
        self._most = most
        self._period = period
        self._keys = keys
        self._failed: OrderedDict[Hashable, deque[float]] = OrderedDict()  # the latest to fail last

    def count(self, key: Hashable, now: float) -> None:
        """Note that this peer failed."""
        failed = self._failed.setdefault(key, deque(maxlen=self._most))
        failed.append(now)
        self._failed.move_to_end(key)
        if len(self._failed) > self._keys:
            self._failed.popitem(last=False)

    def over(self, key: Hashable, now: float) -> bool:
        """Return whether this peer has failed `most` times within the last `period` seconds."""
        failed = self._failed.get(key)
        return failed is not None and len(failed) == self._most and now - failed[0] < self._period

    def __len__(self) -> int:
        return len(self._failed)
