"""What the runner does with files: its own, and those that a program left."""

import errno
import fcntl
import os
import socket
import stat
import time
from pathlib import Path

import pytest

from commserver.engine.runner import runner


@pytest.fixture
def root(tmp_path: Path) -> int:
    """A work directory after its program has ended."""
    (tmp_path / "plain").write_text("plain")
    (tmp_path / "sub" / "dir").mkdir(parents=True)
    (tmp_path / "sub" / "dir" / "deep").write_text("deep")
    (tmp_path / "sub" / "dir").chmod(0)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secret").chmod(0)
    (tmp_path / "setuid").write_text("setuid")
    (tmp_path / "setuid").chmod(0o4755)
    (tmp_path / "large").write_bytes(b"x" * 101)
    (tmp_path / "link").symlink_to("plain")
    (tmp_path / "away").symlink_to("sub")
    (tmp_path / "twice").write_text("x")
    os.link(tmp_path / "twice", tmp_path / "again")
    os.mkfifo(tmp_path / "fifo")
    return os.open(tmp_path, os.O_RDONLY)


@pytest.mark.parametrize(
    ("path", "content"),
    [("plain", b"plain"), ("sub/dir/deep", b"deep"), ("secret", b"secret")],
)
def test_plain_files_are_taken(root: int, path: str, content: bytes) -> None:
    fd = runner.open_artifact(root, path, limit=100)

    assert os.read(fd, 100) == content
    os.close(fd)
    os.close(root)


@pytest.mark.parametrize(
    "path",
    [
        *("setuid", "large", "link", "away/dir/deep", "twice", "fifo", "sub", "nothing"),
        *("plain/x", "sub/nothing/x", "link/x"),
    ],
)
def test_nothing_else_is_taken(root: int, path: str) -> None:
    with pytest.raises(OSError):  # noqa: PT011 -- which one does not matter
        runner.open_artifact(root, path, limit=100)
    os.close(root)


@pytest.mark.parametrize(
    "kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK], ids=stat.filemode
)
def test_what_is_more_than_a_file_is_not_taken(tmp_path: Path, kind: int) -> None:
    """Not even opened: with some devices that alone does something."""
    path = tmp_path / "special"
    if kind == stat.S_IFSOCK:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        try:
            os.mknod(path, kind | 0o666, os.makedev(1, 3))  # would be /dev/null, if of characters
        except PermissionError:
            pytest.skip("this takes a user who may make devices")
    assert stat.S_IFMT(path.stat().st_mode) == kind
    mode = path.stat().st_mode
    root = os.open(tmp_path, os.O_RDONLY)

    with pytest.raises(FileNotFoundError):
        runner.open_artifact(root, "special", limit=100)

    assert path.stat().st_mode == mode
    os.close(root)


def test_what_is_moved_keeps_its_holes(tmp_path: Path) -> None:
    content = bytes(3 << 20) + b"x" + bytes(1000)
    (tmp_path / "source").write_bytes(content)
    source = os.open(tmp_path / "source", os.O_RDWR)
    target = runner.unnamed()

    runner.move(source, target, len(content))

    assert os.pread(target, len(content) + 1, 0) == content
    assert os.fstat(target).st_blocks * 512 < 1 << 20
    os.close(source)
    os.close(target)


def test_what_is_sealed_cannot_be_changed(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"0123456789")
    source = os.open(tmp_path / "source", os.O_RDONLY)

    first, second = runner.sealed(source, 10), runner.sealed(source, 10)

    assert (os.read(first, 5), os.read(second, 20)) == (b"01234", b"0123456789")
    assert os.fstat(first).st_ino != os.fstat(second).st_ino
    again = os.open(f"/proc/self/fd/{first}", os.O_RDWR)
    for change in (
        lambda: os.write(again, b"x"),
        lambda: os.ftruncate(again, 0),
        lambda: os.ftruncate(again, 99),
        lambda: fcntl.fcntl(again, runner.F_ADD_SEALS, 0),
        lambda: os.write(first, b"x"),
    ):
        with pytest.raises(OSError) as caught:  # noqa: PT011 -- the number is compared below
            change()
        assert caught.value.errno in (errno.EPERM, errno.EBADF)
    for fd in (source, first, second, again):
        os.close(fd)


def test_what_is_put_somewhere_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "KEEP", str(tmp_path / "keep"))
    store = runner.Store()
    for name, content in (("a", b"abc"), ("b", b"")):
        source = runner.unnamed()
        os.write(source, content)
        store.move(name, source, len(content), of_case=name == "b")
    store.alias("c", "a", of_case=True)
    process = object.__new__(runner.Process)
    process.files = [("a", "x/y/a"), ("c", "x/c"), ("b", "b")]
    work = tmp_path / "work"
    work.mkdir()
    keep = os.open(tmp_path / "keep", os.O_RDONLY)

    runner.put_files(process, store, keep, str(work))
    (work / "x" / "c").write_text("changed")

    assert (work / "x" / "y" / "a").read_bytes() == b"abc"
    assert (work / "b").read_bytes() == b""
    reader = store.reader("c")
    assert os.read(reader, 10) == b"abc"
    os.close(reader)
    os.close(keep)
    store.end_case()
    assert store.size("a") == 3
    with pytest.raises(KeyError):
        store.size("c")
    assert len(os.listdir(tmp_path / "keep")) == 1
    store.clear()
    assert os.listdir(tmp_path / "keep") == []


def test_any_folder_is_emptied(tmp_path: Path) -> None:
    inner = tmp_path
    for _ in range(30):
        inner = inner / "deep"
        inner.mkdir()
        (inner / "file").touch()
    os.symlink("/etc", tmp_path / "link")
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "file").touch()
    (tmp_path / "closed").chmod(0)

    runner.empty(str(tmp_path), time.monotonic() + 60)

    assert os.listdir(tmp_path) == []


def test_emptying_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(runner.Failure):
        runner.empty(str(tmp_path), time.monotonic() - 1)


def test_a_file_is_read_whole_though_it_comes_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 3 * runner.CHUNK)

    assert len(runner.read(str(tmp_path / "file"))) == 3 * runner.CHUNK
