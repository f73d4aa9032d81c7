"""Text of others, made fit to be stored and shown anywhere."""

import re

from commserver.core.execution import KIB

TEXT_LIMIT = 64 * KIB
CUT_MARK = "\n… [cut here]"

# Control characters except newline and tab, the characters that turn the direction of writing, and
# lone surrogates. PostgreSQL refuses NUL, UTF-8 refuses surrogates; the rest can make a text look
# like what it is not.
_UNFIT = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_MARK = CUT_MARK.encode()


def clean_text(text: str, limit: int = TEXT_LIMIT) -> str:
    """Return `text` without what a database refuses or a reader is deceived by.

    Control characters (but newline and tab), bidirectional controls and lone surrogates are left
    out. What is then longer than `limit` bytes of UTF-8 is cut between two characters and ends
    with CUT_MARK, the mark included in the limit. Cleaning twice changes nothing.
    """
    assert limit >= len(_MARK)
    text = _UNFIT.sub("", text)
    if len(text) * 4 <= limit:  # no character takes more than four bytes
        return text
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    return encoded[: limit - len(_MARK)].decode(errors="ignore") + CUT_MARK
