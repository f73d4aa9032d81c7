"""The file that `commserver backup` writes: what is in it, and whether it is whole.

A ZIP file of one member a table, a row of it a line of JSON, one with the stored contents, and a
manifest that names each with its size and sha256. Members are read by the names that we know and
never unpacked to the disk, so no name in it can lead anywhere.
"""

import hashlib
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, TypeVar

import msgspec

from commserver.core.jobs import content_hash
from commserver.errors import StoreError, StoreRefused
from commserver.services.file_store import flush_folder

FORMAT = 1
MANIFEST = "manifest.json"
CONTENTS = "contents"
MANIFEST_LIMIT = 1 << 20  # bytes
LINE_LIMIT = 256 << 20  # bytes of one row or content
AT_ONCE = 500  # rows that are in memory at a time

R = TypeVar("R")

Count = Annotated[int, msgspec.Meta(ge=0)]


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stored content; `name` is the sha256 of `data`."""

    name: str
    data: bytes


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one member holds: lines, and bytes before they were compressed."""

    rows: Count
    size: Count
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an archive is of.

    engine: the kind of database it was made from. revisions: of each series of migrations whose
    tables are in it. missing: contents of runs that had not ended which the site had lost.
    """

    format: int
    made_at: datetime
    engine: str
    site: str
    revisions: dict[str, str]
    members: dict[str, Member]
    missing: Count


class _Format(msgspec.Struct):
    """As much of a manifest as every version has."""

    format: int


class Writer:
    """An archive that is being written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED)
        self.members: dict[str, Member] = {}

    def begin(self) -> None:
        """Forget whatever was written: a transaction that writes it may be run a second time."""
        self._zip.close()
        self._file.seek(0)
        self._file.truncate()
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED)
        self.members = {}

    @contextmanager
    def member(self, name: str) -> Iterator["MemberWriter"]:
        """Give one member its lines, until the end of the block.

        Raises:
            StoreRefused: it has them already.
        """
        if name in self.members:
            raise StoreRefused(f"the archive would have {name} twice")
        with self._zip.open(_file_name(name), "w", force_zip64=True) as file:
            writer = MemberWriter(name, file)
            yield writer
        self.members[name] = writer.summary()

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest, which makes it whole."""
        self._zip.writestr(MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))

    def close(self) -> None:
        """Write what a ZIP file ends with."""
        self._zip.close()


class MemberWriter:
    """One member that is being written."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self._name = name
        self._file = file
        self._hash = hashlib.sha256()
        self._rows = 0
        self._size = 0

    def write(self, records: Iterable[object]) -> None:
        """Add a line each.

        Raises:
            StoreRefused: one is longer than any that could be read back.
        """
        for record in records:
            line = msgspec.json.encode(record) + b"\n"
            if len(line) > LINE_LIMIT:
                raise StoreRefused(f"{self._name} has a row of more than {LINE_LIMIT} bytes")
            self._hash.update(line)
            self._rows += 1
            self._size += len(line)
            self._file.write(line)

    def summary(self) -> Member:
        """Return what was written."""
        return Member(self._rows, self._size, self._hash.hexdigest())


@contextmanager
def written(path: Path, *, force: bool = False) -> Iterator[Writer]:
    """Make an archive in the block; it is there, whole and flushed, or not at all.

    Raises:
        StoreError: it is there already, and not to be replaced, or the disk did not take it.
    """
    there = StoreError(f"{path} is there already; --force replaces it")
    if not force and path.exists():
        raise there
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                with closing(Writer(file)) as writer:
                    yield writer
                file.flush()
                os.fsync(file.fileno())
            if force:
                os.replace(temporary, path)
            else:
                os.link(temporary, path)  # fails when somebody else was faster
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
        flush_folder(path.parent)
    except FileExistsError as error:
        raise there from error
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


class Archive:
    """An archive that was read once from end to end and found whole."""

    def __init__(self, path: Path, tables: Mapping[str, type[msgspec.Struct]]) -> None:
        """Look at everything in it.

        tables: what a row is, of each table that may be in it.

        Raises:
            StoreError: it cannot be read.
            StoreRefused: it is no archive of ours, of a newer version, or damaged.
        """
        self._path = path
        self._kinds: dict[str, type[msgspec.Struct]] = {**tables, CONTENTS: Content}
        with self._read():
            self._zip = zipfile.ZipFile(path)
            try:
                self.manifest = self._manifest()
                self._check()
            except BaseException:  # whatever it was, nobody has the file yet who would close it
                self._zip.close()
                raise

    def close(self) -> None:
        """Let go of the file."""
        self._zip.close()

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rows(self, table: str) -> Iterator[list[msgspec.Struct]]:
        """Yield a table's rows, a few at a time."""
        return self._parts(table, self._kinds[table])

    def contents(self) -> Iterator[Content]:
        """Yield the stored contents."""
        for some in self._parts(CONTENTS, Content):
            yield from some

    def _manifest(self) -> Manifest:
        names = self._zip.namelist()
        if MANIFEST not in names:
            raise self._refused("it is no archive of commserver")
        if self._zip.getinfo(MANIFEST).file_size > MANIFEST_LIMIT:
            raise self._refused("its manifest is too long")
        with self._zip.open(MANIFEST) as file:
            text = file.read(MANIFEST_LIMIT)
        found = msgspec.json.decode(text, type=_Format).format
        if found != FORMAT:
            raise self._refused(f"its format is {found}, this version of commserver has {FORMAT}")
        manifest = msgspec.json.decode(text, type=Manifest)
        expected = {MANIFEST, *map(_file_name, manifest.members)}
        if strange := [name for name in names if name not in expected]:
            raise self._refused(f"its manifest does not name {strange[0]!r}")
        if strange := [name for name in manifest.members if name not in self._kinds]:
            raise self._refused(f"nobody knows its member {strange[0]!r}")
        if len(names) != len(expected):
            raise self._refused("its members are not those of its manifest")
        return manifest

    def _check(self) -> None:
        """Read every line once."""
        for name, member in self.manifest.members.items():
            info = self._zip.getinfo(_file_name(name))
            if info.file_size != member.size:
                raise self._damaged(f"{name} is not as long as its manifest says")
            hashed = hashlib.sha256()
            decoder = msgspec.json.Decoder(self._kinds[name])
            rows = 0
            for line in self._lines(name):
                rows += 1
                hashed.update(line)
                record = decoder.decode(line)
                if isinstance(record, Content) and content_hash(record.data) != record.name:
                    raise self._damaged(f"a content is not what its name says: {record.name!r}")
            if (rows, hashed.hexdigest()) != (member.rows, member.sha256):
                raise self._damaged(f"{name} is not what its manifest says")

    def _parts(self, name: str, kind: type[R]) -> Iterator[list[R]]:
        decoder = msgspec.json.Decoder(kind)
        some: list[R] = []
        with self._read():
            for line in self._lines(name):
                some.append(decoder.decode(line))
                if len(some) == (1 if name == CONTENTS else AT_ONCE):
                    yield some
                    some = []
        if some:
            yield some

    def _lines(self, name: str) -> Iterator[bytes]:
        with self._zip.open(_file_name(name)) as file:
            while line := file.readline(LINE_LIMIT):
                if not line.endswith(b"\n"):
                    raise self._damaged(f"a line of {name} is too long or cut")
                yield line

    @contextmanager
    def _read(self) -> Iterator[None]:
        """Turn whatever can go wrong with a file that anybody made into one sentence."""
        try:
            yield
        except OSError as error:
            raise StoreError(f"cannot read {self._path}: {error.strerror or error}") from error
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise self._refused("the archive is damaged, cut or none at all") from error
        except msgspec.MsgspecError as error:
            raise self._damaged(f"what is in it cannot be read: {error}") from error
        except (NotImplementedError, RuntimeError, ValueError, LookupError, struct.error) as error:
            # Other compressions, passwords, numbers that no archive has.
            raise self._refused("the archive is damaged or none of commserver's") from error

    def _damaged(self, detail: str) -> StoreRefused:
        return self._refused(f"the archive is damaged: {detail}")

    def _refused(self, why: str) -> StoreRefused:
        return StoreRefused(f"cannot restore from {self._path}: {why}")


def _file_name(member: str) -> str:
    return f"{member}.jsonl"
