"""Names of files that strangers choose."""


def is_safe(path: str) -> bool:
    """Return whether `path` can be placed in a work directory and named on a command line.

    Relative, POSIX, parts of at most 255 bytes, none empty, `.`, `..` or with NUL, no leading `-`
    (protocol page `invoker`, "Pipeline").
    """
    try:
        parts = path.encode().split(b"/")
    except UnicodeEncodeError:
        return False
    return not path.startswith("-") and all(
        0 < len(part) <= 255 and part not in (b".", b"..") and b"\0" not in part for part in parts
    )
