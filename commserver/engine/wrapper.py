"""The container engine's API for asyncio: every call has a deadline and no thread is ever stuck.

The Docker SDK blocks, so each call runs in one of a bounded number of threads; its socket has the
same deadline as its caller, so that the thread ends with it. Only `attach` goes another way: it
hands its socket to asyncio, for a container lives longer than a call.
"""

import asyncio
import contextlib
import io
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests.exceptions
import urllib3.exceptions
from docker.api.client import APIClient
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.transport.unixconn import (
    UnixHTTPAdapter,
    UnixHTTPConnection,
    UnixHTTPConnectionPool,
)

from commserver.errors import ImageMissing, SandboxError, SandboxUnavailable

T = TypeVar("T")

# A creation that we gave up on may still happen: for so long "there is no such container" proves
# nothing about it, in seconds.
UNCERTAIN = 120.0

# What the SDK and the layers below it raise when the engine cannot be reached or falls silent.
_UNREACHABLE = (
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine says about itself."""

    version: str
    api_version: str
    kernel: str
    architecture: str
    cgroup_version: int
    cpus: int
    memory: int
    security_options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContainerState:
    """Where a container stands: `status` is the engine's word, such as "running" or "exited"."""

    status: str
    exit_code: int
    out_of_memory: bool
    error: str


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """One line of a list of containers."""

    id: str
    name: str
    status: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """One image: `id` is its digest, "sha256:…"."""

    id: str
    tags: tuple[str, ...]
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Attachment:
    """Both directions of a container's standard streams; the output is multiplexed."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def close(self) -> None:
        """Hang up; the container's standard input ends with it."""
        self.writer.transport.abort()


class DockerWrapper:
    """One engine.

    url: unix:///path or tcp://host:port; TLS is not spoken here.
    deadline: seconds that any call may take, its wait for a thread included.
    workers: calls under way at once; further ones wait.

    Errors of all methods: `SandboxUnavailable` when the engine cannot be reached or is silent,
    `ImageMissing` when it has no such image, else `SandboxError` with what it said.
    """

    def __init__(self, url: str, *, deadline: float = 30.0, workers: int = 16) -> None:
        if not url.startswith(("unix://", "tcp://", "http://")):
            raise SandboxError(f"an engine at {url!r} cannot be used: only unix:// and tcp:// can")
        self.url = url
        self.deadline = deadline
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="docker")
        self._lock = threading.Lock()
        self._clients: dict[float, APIClient] = {}
        # Until when (monotonic seconds) "there is no such container" proves nothing, by name.
        self._leftovers: dict[str, float] = {}

    # --- the plumbing ---------------------------------------------------------------------------

    def _client(self, timeout: float) -> APIClient:
        """The SDK's client with this socket timeout; made by the first thread that needs it.

        Making it asks the engine for its version, and so may block and may fail.
        """
        with self._lock:
            if timeout in self._clients:
                return self._clients[timeout]
        asking = _new_client(self.url, "1.41", timeout)
        try:
            version = str(asking.version(api_version=False)["ApiVersion"])
        finally:
            asking.close()
        client = _new_client(self.url, version, timeout)
        with self._lock:
            return self._clients.setdefault(timeout, client)

    def _submit(self, work: Callable[[APIClient], T], deadline: float) -> "Future[T]":
        """Have a thread do `work` as soon as one is free."""
        try:
            return self._threads.submit(lambda: work(self._client(deadline)))
        except RuntimeError as error:
            raise SandboxUnavailable(f"the engine at {self.url} has been let go of") from error

    async def _result(self, future: "Future[T]", deadline: float, missing: str = "") -> T:
        """Wait for what a thread does, until the deadline at most.

        missing: the image that a "not found" speaks of.
        """
        try:
            async with asyncio.timeout(deadline):
                return await asyncio.wrap_future(future)
        except (TimeoutError, requests.exceptions.Timeout) as error:
            raise SandboxUnavailable(
                f"the engine at {self.url} did not answer within {deadline:g} s"
            ) from error
        except ImageNotFound as error:
            raise ImageMissing(missing) from error
        except APIError as error:
            raise SandboxError(error.explanation or str(error)) from error
        except (*_UNREACHABLE, DockerException) as error:
            raise SandboxUnavailable(f"the engine at {self.url} cannot be reached") from error

    async def _call(
        self, work: Callable[[APIClient], T], *, deadline: float | None = None, missing: str = ""
    ) -> T:
        """Do `work` in a thread, within the deadline."""
        deadline = deadline or self.deadline
        return await self._result(self._submit(work, deadline), deadline, missing)

    def close(self) -> None:
        """Let go of the threads and connections; calls under way end by their deadline."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    # --- the engine -----------------------------------------------------------------------------

    async def ping(self, deadline: float | None = None) -> None:
        """Return if the engine answers."""
        await self._call(lambda api: api.ping(), deadline=deadline)

    async def info(self) -> EngineInfo:
        """What the engine is and what it runs on."""
        said: dict[str, Any] = await self._call(lambda api: {**api.info(), **api.version()})
        return EngineInfo(
            version=str(said["Version"]),
            api_version=str(said["ApiVersion"]),
            kernel=str(said["KernelVersion"]),
            architecture=str(said["Arch"]),
            cgroup_version=int(said.get("CgroupVersion") or 1),
            cpus=int(said["NCPU"]),
            memory=int(said["MemTotal"]),
            security_options=tuple(map(str, said.get("SecurityOptions") or ())),
        )

    # --- containers -----------------------------------------------------------------------------

    async def create(self, name: str, config: Mapping[str, Any]) -> str:
        """Create a container from the engine API's own JSON and return its id.

        The name is the caller's, so that a container can be removed even if this call is given up
        on and its id never known: then it is one of the `leftovers`.
        """
        future: Future[dict[str, Any]] = self._submit(
            lambda api: api.create_container_from_config(dict(config), name), self.deadline
        )
        try:
            answer = await self._result(future, self.deadline, missing=str(config["Image"]))
        except (SandboxUnavailable, asyncio.CancelledError):
            self._leftovers[name] = math.inf
            future.add_done_callback(lambda future: self._settle(name, future))
            raise
        return str(answer["Id"])

    def _settle(self, name: str, creation: "Future[dict[str, Any]]") -> None:
        """Note what became of a creation that was given up on; called in any thread."""
        if creation.cancelled() or isinstance(creation.exception(), APIError):
            self._leftovers.pop(name, None)  # it will never be
        elif creation.exception() is None:
            self._leftovers[name] = 0.0  # it is
        else:
            self._leftovers[name] = time.monotonic() + UNCERTAIN

    async def start(self, name: str) -> None:
        """Start it."""
        await self._call(lambda api: api.start(name))

    async def attach(self, name: str) -> Attachment:
        """Hold its standard streams; to miss nothing, before it is started."""
        future = self._submit(lambda api: _attach(api, name), self.deadline)
        try:
            raw = await self._result(future, self.deadline)
        except (SandboxError, asyncio.CancelledError):
            future.add_done_callback(_hang_up)
            raise
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 20)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            if raw.family == socket.AF_UNIX:
                transport, _ = await loop.create_unix_connection(lambda: protocol, sock=raw)
            else:
                transport, _ = await loop.create_connection(lambda: protocol, sock=raw)
        except BaseException:  # cancelled as well: the socket is nobody's yet
            raw.close()
            raise
        return Attachment(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    async def wait(self, name: str, deadline: float | None = None) -> int:
        """Wait until it has ended and return its exit code."""
        answer: dict[str, Any] = await self._call(lambda api: api.wait(name), deadline=deadline)
        return int(answer["StatusCode"])

    async def state(self, name: str, deadline: float | None = None) -> ContainerState:
        """Where it stands."""
        answer: dict[str, Any] = await self._call(
            lambda api: api.inspect_container(name), deadline=deadline
        )
        state = answer["State"]
        return ContainerState(
            status=str(state["Status"]),
            exit_code=int(state["ExitCode"]),
            out_of_memory=bool(state["OOMKilled"]),
            error=str(state.get("Error") or ""),
        )

    async def kill(self, name: str) -> None:
        """Kill it; no error if it has ended."""
        try:
            await self._call(lambda api: api.kill(name))
        except SandboxError as error:
            if isinstance(error, SandboxUnavailable):
                raise

    async def containers(self, labels: Mapping[str, str]) -> list[ContainerInfo]:
        """All containers that have these labels, ended ones too."""
        wanted = [f"{key}={value}" for key, value in labels.items()]
        answer: list[dict[str, Any]] = await self._call(
            lambda api: api.containers(all=True, filters={"label": wanted})
        )
        return [
            ContainerInfo(
                id=str(item["Id"]),
                name=str((item.get("Names") or ["/"])[0]).removeprefix("/"),
                status=str(item["State"]),
                labels=dict(item.get("Labels") or {}),
            )
            for item in answer
        ]

    async def remove(self, name: str, deadline: float | None = None) -> bool:
        """Kill and remove it with its volumes; false if there is no such container."""

        def work(api: APIClient) -> bool:
            try:
                api.remove_container(name, force=True, v=True)
            except NotFound:
                return False
            return True

        return await self._call(work, deadline=deadline)

    async def discard(self, name: str, deadline: float = 20.0) -> None:
        """Remove it, or remember that it must be: never an error."""
        uncertain_until = self._leftovers.setdefault(name, 0.0)
        with contextlib.suppress(SandboxError):
            if await self.remove(name, deadline) or uncertain_until <= time.monotonic():
                self._leftovers.pop(name, None)

    @property
    def leftovers(self) -> tuple[str, ...]:
        """Names of containers that are still to be removed, or are being removed."""
        return tuple(self._leftovers)

    async def remove_leftovers(self) -> int:
        """Try again to remove what could not be removed; return how many are left."""
        names = self.leftovers
        if names:
            await asyncio.gather(*map(self.discard, names))
        return len(self._leftovers)

    # --- images ---------------------------------------------------------------------------------

    async def image(self, name: str) -> ImageInfo:
        """The image that a name or an id stands for now."""
        answer: dict[str, Any] = await self._call(lambda api: api.inspect_image(name), missing=name)
        return ImageInfo(
            id=str(answer["Id"]),
            tags=tuple(map(str, answer.get("RepoTags") or ())),
            labels=dict((answer.get("Config") or {}).get("Labels") or {}),
        )

    async def images(self, label: str) -> list[ImageInfo]:
        """All images that have this label, whatever its value."""
        answer: list[dict[str, Any]] = await self._call(
            lambda api: api.images(filters={"label": label})
        )
        return [
            ImageInfo(
                id=str(item["Id"]),
                tags=tuple(map(str, item.get("RepoTags") or ())),
                labels=dict(item.get("Labels") or {}),
            )
            for item in answer
        ]

    async def build(
        self,
        context: bytes,
        tag: str,
        *,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        deadline: float = 1800.0,
    ) -> None:
        """Build an image out of a tar archive with a Dockerfile, on the host's own network.

        Raises:
            SandboxError: a step failed; the message ends with what it printed.
        """

        def work(api: APIClient) -> None:
            printed: list[str] = []
            problem = ""
            steps = api.build(
                fileobj=io.BytesIO(context),
                custom_context=True,
                tag=tag,
                buildargs=dict(arguments),
                labels=dict(labels),
                network_mode="host",
                rm=True,
                forcerm=True,
                decode=True,
            )
            # To its end in any case: only then is the connection free again.
            for step in steps:
                printed = [*printed[-30:], str(step.get("stream", ""))]
                problem = str(step.get("error", problem))
            if problem:
                raise SandboxError(f"{tag} cannot be built: {problem}\n{''.join(printed)}")

        await self._call(work, deadline=deadline)

    async def import_image(self, path: Path, repository: str, tag: str) -> None:
        """Make an image out of a tar archive of a root file system."""
        await self._call(
            lambda api: api.import_image_from_file(str(path), repository=repository, tag=tag),
            deadline=600.0,
        )

    async def pull(self, repository: str, tag: str, deadline: float) -> None:
        """Fetch an image from its registry."""
        await self._call(
            lambda api: api.pull(repository, tag=tag),
            deadline=deadline,
            missing=f"{repository}:{tag}",
        )

    async def tag(self, image: str, repository: str, tag: str) -> None:
        """Give an image one more name."""
        await self._call(lambda api: api.tag(image, repository, tag=tag), missing=image)

    async def remove_image(self, name: str) -> None:
        """Take a name from an image, and the image with its last name."""
        await self._call(lambda api: api.remove_image(name), missing=name)


def _new_client(url: str, version: str, timeout: float) -> APIClient:
    """The SDK's client, without a connection yet."""
    client = APIClient(base_url=url, version=version, timeout=timeout)
    client.trust_env = False  # a proxy is for registries, never between us and the engine
    if url.startswith("unix://"):
        client.mount("http+docker://", _UnixAdapter(url, timeout))
    return client


class _UnixConnection(UnixHTTPConnection):  # type: ignore[misc]  # untyped
    """The SDK's own leaves a socket that cannot be connected to the garbage collector."""

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self.unix_socket)
        except BaseException:  # whatever it was, the socket is nobody's yet
            sock.close()
            raise
        self.sock = sock


class _UnixPool(UnixHTTPConnectionPool):  # type: ignore[misc]  # untyped
    def _new_conn(self) -> _UnixConnection:
        return _UnixConnection(self.base_url, self.socket_path, self.timeout)


class _UnixAdapter(UnixHTTPAdapter):  # type: ignore[misc]  # untyped
    """The SDK's own has a pool of connections for each URL, so that none is ever used again."""

    def __init__(self, url: str, timeout: float) -> None:
        super().__init__(f"http+{url}", timeout=timeout)
        self._pool = _UnixPool("http+docker://localhost", self.socket_path, timeout, maxsize=8)

    def get_connection(self, url: str, proxies: object = None) -> _UnixPool:
        return self._pool

    def close(self) -> None:
        super().close()
        self._pool.close()


def _attach(api: APIClient, name: str) -> socket.socket:
    """The socket of a container's streams, taken away from the SDK."""
    params = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
    stream = api.attach_socket(name, params=params)
    raw, response = stream._sock, stream._response
    taken = socket.socket(raw.family, raw.type, raw.proto, fileno=raw.detach())
    taken.setblocking(False)
    response.close()
    return taken


def _hang_up(attaching: "Future[socket.socket]") -> None:
    """Close a socket that came too late for whoever wanted it."""
    if not attaching.cancelled() and attaching.exception() is None:
        attaching.result().close()
