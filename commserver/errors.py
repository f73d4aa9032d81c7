"""Every error that commserver raises on purpose, in one tree.

A class stands for a thing that a caller does differently, carries its data on attributes, and is
translated to the words of a protocol in that protocol's own folder. A student's program that fails
is no error: it is a `Completed` outcome.

    CommServerError
    ├─ ConfigError(problems)          all problems at once
    ├─ DefinitionError(problems)      the teacher's: an exercise that cannot be graded as it stands
    ├─ GraderError(message, details)  the teacher's: a program of theirs broke while it graded
    ├─ ProtocolError                  the peer's fault: answer, maybe close, never a traceback
    │   ├─ MalformedPacket(field)
    │   ├─ UnexpectedPacket(state)
    │   ├─ KeyReused(key)             one key for two different requests
    │   ├─ RequestError(problems)     what is to be executed cannot be, as it stands
    │   └─ PacketTooLarge(limit)
    ├─ AccessError
    │   ├─ NotAuthenticated
    │   └─ NotAllowed(kind, id)
    ├─ NotFound(kind, id)
    ├─ RateLimited                    too much of it from there: later
    ├─ Unanswered                     somebody whom we had to ask did not answer
    ├─ StoreError                     the database or the file store did not do it
    │   ├─ StoreRefused               and never will: another try cannot mend it
    │   │   └─ AlreadyExists(what)
    │   ├─ StoreFull(limit)           a file is more than may be kept
    │   └─ AlreadyManaged(holder)     another manager owns this database
    └─ SandboxError                   the container engine did not do it
        ├─ SandboxUnavailable         nothing was begun: the engine did not answer
        ├─ SandboxLost(container)     it was begun and went away
        └─ ImageMissing(image)
"""

from collections.abc import Sequence


class CommServerError(Exception):
    """The root: ``except CommServerError`` is everything that this package raises on purpose."""


class ConfigError(CommServerError):
    """The configuration cannot be used; `problems` holds one sentence each, all of them."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class DefinitionError(CommServerError):
    """An exercise cannot be graded as it stands: the teacher's fault, one sentence a problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class GraderError(CommServerError):
    """A teacher's program broke while it graded: the teacher's fault, never the student's.

    message: one line that a student may read. details: any number of lines, for the teacher.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def of_case(self, name: str) -> "GraderError":
        """Return the same, with the name of the case in which it happened for the teacher."""
        return GraderError(self.message, f"in the case {name!r}: {self.details}")


class ProtocolError(CommServerError):
    """A peer said what its protocol does not allow."""


class MalformedPacket(ProtocolError):
    """A packet that cannot be read; `field` names the culprit where one is known, else ""."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class UnexpectedPacket(ProtocolError):
    """A readable packet that has no place in the connection's `state`."""

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state


class KeyReused(ProtocolError):
    """A key that must stand for one request was sent with another."""

    def __init__(self, key: str) -> None:
        super().__init__("this Idempotency-Key was sent with another request before")
        self.key = key


class RequestError(ProtocolError):
    """An execution that cannot be carried out as it stands; `problems` says where and what."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class PacketTooLarge(ProtocolError):
    """A frame above `limit` bytes; the stream cannot be read on."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"a frame is longer than {limit} bytes")
        self.limit = limit


class AccessError(CommServerError):
    """Somebody asked for what is not theirs."""


class NotAuthenticated(AccessError):
    """Nobody is known behind this connection."""


class NotAllowed(AccessError):
    """Known, but this (`kind`, `id`) is somebody else's; both are "" when it is no one thing."""

    def __init__(self, message: str, kind: str = "", id: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.id = id


class NotFound(CommServerError):
    """There is no `kind` with this `id`, or not enough of it to work on."""

    def __init__(self, kind: str, id: str, message: str = "") -> None:
        super().__init__(message or f"no {kind} {id}")
        self.kind = kind
        self.id = id


class RateLimited(CommServerError):
    """Somebody asks too often, or was wrong too often; nothing was looked at."""


class Unanswered(CommServerError):
    """Somebody outside whom we had to ask did not answer in time: nobody's fault here."""


class StoreError(CommServerError):
    """The database or the file store did not do what was asked; nothing is half-written."""


class StoreRefused(StoreError):
    """This very thing cannot be stored or read, however often it is tried."""


class AlreadyExists(StoreRefused):
    """A row with this key is there already; `what` names the constraint or the key."""

    def __init__(self, what: str) -> None:
        super().__init__(f"already there: {what}")
        self.what = what


class StoreFull(StoreError):
    """A file was not taken: with it the store would have more than its own `limit`, in bytes."""

    def __init__(self, message: str, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class AlreadyManaged(StoreError):
    """Another running manager owns this database; `holder` says which."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"this database is already managed by {holder}")
        self.holder = holder


class SandboxError(CommServerError):
    """The container engine did not do what was asked."""


class SandboxUnavailable(SandboxError):
    """The engine did not answer before anything was begun: trying elsewhere costs nothing."""


class SandboxLost(SandboxError):
    """A container was begun and could not be finished with.

    `container` is its id, or "" when it was never known. `engine_down` is true when the engine
    itself stopped answering, so that the work may be what brought it down.
    """

    def __init__(self, message: str, container: str = "", *, engine_down: bool = False) -> None:
        super().__init__(message)
        self.container = container
        self.engine_down = engine_down


class ImageMissing(SandboxError):
    """The engine has no image of this name, and none is ever pulled."""

    def __init__(self, image: str) -> None:
        super().__init__(f"no image {image} on this engine")
        self.image = image
