"""What one run judges, frozen when it is handed in: the student's files and the grader."""

from dataclasses import dataclass, field

import msgspec

from commserver.errors import StoreError


@dataclass(frozen=True, slots=True)
class Content:
    """Everything a verdict depends on; equal contents have equal hashes.

    language: ours, not the platform's spelling. files: name and text, sorted by name.
    grader: the newest `scripts` row of the exercise, as it stands; files that it keeps in the file
    store are in it by their hashes.
    """

    language: str
    grade_max: int
    files: tuple[tuple[str, str], ...] = field(repr=False)
    grader: str = field(repr=False)

    def encode(self) -> bytes:
        """Return it as it is stored."""
        return _ENCODER.encode(self)

    @classmethod
    def decode(cls, stored: bytes) -> "Content":
        """Return what `encode` was given.

        Raises:
            StoreError: this is no content.
        """
        try:
            return _DECODER.decode(stored)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise StoreError(f"a stored content cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Draft:
    """What there is of a content, in the same fields: also what cannot be judged has a hash.

    language: the platform's own spelling where it is none of ours.
    """

    language: str
    grade_max: int | None
    files: tuple[tuple[str, str], ...] = field(repr=False)
    grader: str | None = field(repr=False)

    def encode(self) -> bytes:
        """Return it as bytes; where nothing is missing, those of the `Content`."""
        return _ENCODER.encode(self)

    def content(self) -> Content | None:
        """Return the content, None while something is missing."""
        if not self.files or self.grade_max is None or self.grader is None:
            return None
        return Content(self.language, self.grade_max, self.files, self.grader)


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Content)
