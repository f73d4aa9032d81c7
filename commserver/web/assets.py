"""The files that browsers are given: read once, each with its type and a name for its content."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
FOLDERS = ("client", "pages")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file. etag: as it stands in the header, another for each other content."""

    body: bytes = field(repr=False)
    type: str
    etag: str

    def held(self, if_none_match: str) -> bool:
        """Return whether whoever sent this `If-None-Match` has the file as it is."""
        known = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
        return self.etag in known or "*" in known


def load(root: Path = HERE) -> Mapping[str, Asset]:
    """Return every file of ours that may be asked for, by its path from `root`."""
    return {
        path.relative_to(root).as_posix(): _asset(path)
        for folder in FOLDERS
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in TYPES
    }


def _asset(path: Path) -> Asset:
    body = path.read_bytes()
    return Asset(body, TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
