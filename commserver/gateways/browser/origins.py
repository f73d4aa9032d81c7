"""Which pages may dial: a browser says from which origin a page is. Sans-I/O."""

from collections.abc import Sequence
from urllib.parse import urlsplit

EVERY = "*"


class Origins:
    """Allows who is no browser, pages of the host that is dialled, and those of the configuration.

    The port does not matter for pages of the same host: the page may be on another than we are.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = {_plain(origin) for origin in allowed}

    def allow(self, origins: Sequence[str], hosts: Sequence[str]) -> bool:
        """Return whether a request with these `Origin` and `Host` headers may connect."""
        if not origins or EVERY in self._allowed:
            return True
        if len(origins) != 1:
            return False
        if _plain(origins[0]) in self._allowed:
            return True
        own = _host_name(f"//{hosts[0]}") if len(hosts) == 1 else ""
        return own != "" and _host_name(origins[0]) == own


def _plain(origin: str) -> str:
    return origin.strip().rstrip("/").casefold()


def _host_name(url: str) -> str:
    """Return the host of a URL in lower case, "" when it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
