"""In which order runs of one class are served: the one place that fair share will change."""

from typing import Protocol

from commserver.core.jobs import Job, SortKey


class Ordering(Protocol):
    """Gives each run its tag at entry and is told what becomes of it.

    The sort key is (class, tag, entry number); it is fixed at entry and stored with the run.
    """

    def tag(self, job: Job) -> float:
        """Return the tag of a run that enters now."""

    def entered(self, job: Job, key: SortKey) -> None:
        """Learn that it waits with this key: it is new, came back, or was restored."""

    def leased(self, job: Job, key: SortKey) -> None:
        """Learn that it is served."""

    def ended(self, job: Job, key: SortKey) -> None:
        """Learn that it will never be served again."""


class FirstInFirstOut:
    """Serve by class, then by entry number alone."""

    def tag(self, job: Job) -> float:
        """Return the same for all."""
        return 0.0

    def entered(self, job: Job, key: SortKey) -> None:
        """Nothing to remember."""

    def leased(self, job: Job, key: SortKey) -> None:
        """Nothing to remember."""

    def ended(self, job: Job, key: SortKey) -> None:
        """Nothing to remember."""
