"""The images that containers are made of: built from `images/<name>/Dockerfile`, never pulled.

Every image stands on `commserver/base`: Debian with Python whole, which the runner needs. Each gets
our programs as its last layer, the runner and what starts teachers' programs: a new one costs a
second and no package is installed again.

An image carries the hash of all it was made from (its folder, our programs, the image below) in the
label `commserver.context`; what has not changed is not built again.
"""

import asyncio
import contextlib
import hashlib
import io
import os
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from commserver.engine.wrapper import DockerWrapper, ImageInfo
from commserver.errors import ImageMissing, SandboxError

REPOSITORY = "commserver"
CONTEXT, ROOT = "commserver.context", "commserver.root"

RUNNER_FOLDER = Path(__file__).with_name("runner")
CONTEXT_FOLDER = "commserver-runner"  # its place beside a Dockerfile

# As the last layer of every image. Each compiled file lies beside its source; Python's own check of
# the one against the other is left out: nobody can write there.
RUNNER_LAYER = f"""
USER 0:0
COPY {CONTEXT_FOLDER}/ /opt/commserver/
RUN ["python3", "-I", "-c", "import pathlib, py_compile as p; \
[p.compile(str(f), str(f) + 'c', doraise=True, \
invalidation_mode=p.PycInvalidationMode.UNCHECKED_HASH) \
for f in pathlib.Path('/opt/commserver').rglob('*.py')]"]
"""

DEBIAN = ("debian", "bookworm-slim")
SUITE = "bookworm"
IMPORTED = (f"{REPOSITORY}/root", SUITE)
PULL_DEADLINE = 60.0  # seconds
DEBOOTSTRAP_DEADLINE = 900.0  # seconds
CHECK_DEADLINE = 30.0  # seconds

# What a container has no use for.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")

PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")

Say = Callable[[str], None]


async def build_all(
    wrapper: DockerWrapper,
    names: Sequence[str] | None = None,
    *,
    images_dir: Path,
    base: str | Path | None = None,
    say: Say,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Build the images of these folders (None: of all) and what they stand on, where need be.

    base: what `commserver/base` is made from: the name of an image, or the path of a tar archive of
    a root file system. None: debian:bookworm-slim if the engine has it, or can pull it and
    COMMSERVER_PULL=1 allows that; else a Debian that mmdebstrap makes (from DEBIAN_MIRROR, if set).

    Raises:
        SandboxError: an image cannot be built; the message says what to do or ends with what the
            build printed.
    """
    folders = image_folders(images_dir)
    if unknown := set(names or ()) - set(folders):
        raise SandboxError(f"there is no {images_dir / min(unknown)}/Dockerfile")
    builder = _Builder(wrapper, folders, base, say, environ)
    for name in names if names is not None else sorted(folders):
        await builder.build(name)
    await builder.clean_up()


def image_folders(images_dir: Path) -> dict[str, Path]:
    """The folders that an image can be built from, by name."""
    return {path.parent.name: path.parent for path in images_dir.glob("*/Dockerfile")}


class _Builder:
    """One call of `build_all`: each image is looked at once."""

    def __init__(
        self,
        wrapper: DockerWrapper,
        folders: Mapping[str, Path],
        base: str | Path | None,
        say: Say,
        environ: Mapping[str, str],
    ) -> None:
        self._wrapper = wrapper
        self._folders = folders
        self._base = base
        self._say = say
        self._environ = environ
        self._done: dict[str, ImageInfo] = {}
        self._replaced: list[ImageInfo] = []  # what stands on others before them

    async def build(self, name: str) -> ImageInfo:
        """The image of one folder, made from what it stands on."""
        if name in self._done:
            return self._done[name]
        dockerfile = (self._folders[name] / "Dockerfile").read_text(encoding="utf-8")
        latest = f"{REPOSITORY}/{name}:latest"
        old = await self._find(latest)
        if name == "base":
            below = await self._root(old)
        else:
            dockerfile += RUNNER_LAYER
            below = (await self.build(parent(dockerfile))).id
        context = pack_context(self._folders[name], dockerfile, with_runner=name != "base")
        digest = hashlib.sha256(context + below.encode()).hexdigest()
        if old is not None and old.labels.get(CONTEXT) == digest:
            self._say(f"image {latest}: up to date")
        else:
            await self._make(name, context, digest, below, old)
        self._done[name] = await self._wrapper.image(latest)
        return self._done[name]

    async def _make(
        self, name: str, context: bytes, digest: str, below: str, old: ImageInfo | None
    ) -> None:
        repository = f"{REPOSITORY}/{name}"
        self._say(f"image {repository}:latest: building …")
        began = time.monotonic()
        await self._wrapper.build(
            context,
            f"{repository}:latest",
            arguments={"BASE": below, **proxies(self._environ)},
            labels={CONTEXT: digest, ROOT: below},
        )
        if name == "base":
            await self._wrapper.tag(f"{repository}:latest", repository, digest[:12])
        if old is not None:
            self._replaced.insert(0, old)
        self._say(f"image {repository}:latest: built in {time.monotonic() - began:.0f} s")

    async def _find(self, name: str) -> ImageInfo | None:
        try:
            return await self._wrapper.image(name)
        except ImageMissing:
            return None

    async def clean_up(self) -> None:
        """Remove the images that newer ones have replaced, unless something still needs them."""
        for old in self._replaced:
            # Its names first, of which only those with a hash are still its own.
            hashes = [tag for tag in old.tags if not tag.endswith(":latest")]
            for name in hashes or [old.id]:
                with contextlib.suppress(SandboxError):
                    await self._wrapper.remove_image(name)

    # --- what the base stands on ----------------------------------------------------------------

    async def _root(self, old: ImageInfo | None) -> str:
        """The id of an image with a Debian in it."""
        imported = ":".join(IMPORTED)
        if isinstance(self._base, Path):
            return await self._import(self._base)
        if self._base is not None:
            return (await self._wrapper.image(self._base)).id
        for name in (":".join(DEBIAN), imported):
            if (found := await self._find(name)) is not None:
                return found.id
        if old is not None and ROOT in old.labels:
            return old.labels[ROOT]  # its layers are there, under no name
        if self._environ.get("COMMSERVER_PULL", "") not in ("", "0"):
            try:
                await self._wrapper.pull(*DEBIAN, deadline=PULL_DEADLINE)
                return (await self._wrapper.image(":".join(DEBIAN))).id
            except SandboxError as error:
                self._say(f"image {':'.join(DEBIAN)}: cannot be pulled ({error})")
        with tempfile.TemporaryDirectory(prefix="commserver-") as folder:
            archive = Path(folder, "root.tar")
            await self._debootstrap(archive)
            return await self._import(archive)

    async def _debootstrap(self, archive: Path) -> None:
        if shutil.which("mmdebstrap") is None:
            if os.geteuid() != 0:
                raise SandboxError(
                    "mmdebstrap is missing: install it (apt-get install mmdebstrap), or let the"
                    " engine pull debian:bookworm-slim (COMMSERVER_PULL=1)"
                )
            self._say("mmdebstrap: installing …")
            await _run("apt-get", "-q", "update")
            await _run("apt-get", "-q", "install", "-y", "--no-install-recommends", "mmdebstrap")
        self._say("a Debian for the images: made by mmdebstrap …")
        mirror = self._environ.get("DEBIAN_MIRROR", "")
        await _run(
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            "--include=python3",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
            SUITE,
            str(archive),
            *([mirror] if mirror else []),
        )

    async def _import(self, archive: Path) -> str:
        """Import a root file system, and name it only after Python has run in it."""
        repository, tag = IMPORTED
        trial = f"{repository}:unchecked"
        await self._wrapper.import_image(archive, repository, "unchecked")
        try:
            await self._check(trial)
            await self._wrapper.tag(trial, repository, tag)
        except SandboxError as error:
            raise SandboxError(f"{archive} is no Debian with Python: {error}") from error
        finally:
            await self._wrapper.remove_image(trial)
        return (await self._wrapper.image(f"{repository}:{tag}")).id

    async def _check(self, image: str) -> None:
        """Return if Python runs in an image."""
        name = f"commserver-check-{os.getpid()}"
        await self._wrapper.create(
            name,
            {
                "Image": image,
                "Cmd": ["python3", "-I", "-c", "import ctypes, json, resource"],
                "NetworkDisabled": True,
                "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "none"}},
            },
        )
        try:
            await self._wrapper.start(name)
            code = await self._wrapper.wait(name, CHECK_DEADLINE)
        finally:
            await self._wrapper.discard(name)
        if code != 0:
            raise SandboxError(f"it ended with exit code {code}")


def parent(dockerfile: str) -> str:
    """Which of our images a Dockerfile stands on: "base", unless its FROM names another."""
    match = re.search(rf"^FROM\s+{REPOSITORY}/([\w-]+)", dockerfile, re.MULTILINE | re.IGNORECASE)
    return match[1] if match else "base"


def pack_context(folder: Path, dockerfile: str, *, with_runner: bool) -> bytes:
    """A folder as the archive that a build is made from; equal folders give equal bytes."""
    contents = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    contents["Dockerfile"] = dockerfile.encode()
    if with_runner:
        for path in RUNNER_FOLDER.rglob("*.py"):
            if path.name != "__init__.py":
                name = path.relative_to(RUNNER_FOLDER).as_posix()
                contents[f"{CONTEXT_FOLDER}/{name}"] = path.read_bytes()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in sorted(contents.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """The proxies of the environment, for a build's own."""
    names = [*PROXIES, *map(str.upper, PROXIES)]
    return {name: environ[name] for name in names if environ.get(name)}


async def _run(*command: str) -> None:
    """Run a program to its end.

    Raises:
        SandboxError: it failed; the message ends with what it printed.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
    try:
        async with asyncio.timeout(DEBOOTSTRAP_DEADLINE):
            printed, _ = await process.communicate()
    except BaseException:  # cancelled or too late: the child must not go on
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        text = printed.decode(errors="replace")[-2000:]
        raise SandboxError(f"{command[0]} failed with {process.returncode}:\n{text}")
