"""Does an output say what was expected?"""

from itertools import zip_longest


def tokens(output: bytes, expected: bytes) -> bool:
    """Compare word by word; how they are spaced and where lines end does not matter."""
    return all(said == meant for said, meant in zip_longest(output.split(), expected.split()))


CHECKERS = {"tokens": tokens}
