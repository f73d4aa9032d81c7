"""Three forms of sandbox on a real engine, and after each test: nothing left, and still well."""

import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import docker
import pytest
import pytest_asyncio

from commserver.core.verdicts import Status, Verdict
from commserver.engine.container import SITE
from commserver.engine.frames import Walls
from commserver.engine.sandbox import REPOSITORY, DockerSandbox
from commserver.engine.wrapper import DockerWrapper
from commserver.graders import kinds
from tests.hostile import inventory
from tests.hostile.entries import RIGHT, Entry
from tests.lab import Lab

FORMS = ("nested", "fresh", "fresh-uid")


@dataclass
class Room:
    """Where hostile submissions are judged as a server judges them, in one form of sandbox."""

    form: str
    sandbox: DockerSandbox
    wrapper: DockerWrapper
    site: str
    engine: docker.APIClient
    used: set[str] = field(default_factory=set)  # ids of the containers that something ran in
    like_new: dict[str, inventory.Inside] = field(default_factory=dict)  # by image

    async def open(self) -> None:
        """Know what containers of each image hold in which only an honest program has run."""
        if self.form != "nested":
            return
        for language, right in RIGHT.items():
            image = await self.wrapper.image(f"{REPOSITORY}/{language}:latest")
            if image.id not in self.like_new:
                assert (await self.submit(right)).status is Status.ACCEPTED
                (pid,) = (f["State"]["Pid"] for f in self._warm() if f["Image"] == image.id)
                self.like_new[image.id] = inventory.inside(pid)
                assert self.like_new[image.id].files - inventory.OF_ENGINE == {"/box/keep"}

    async def submit(self, entry: Entry, slot: int = 3) -> Verdict:
        """What a submission is worth."""
        plan = kinds.plan(entry.content(), {})
        if isinstance(plan, Verdict):
            return plan
        report = await self.sandbox.execute(plan.request, run=entry.name, slot=slot)
        assert report.isolation == self.form
        self.used.add(report.container)
        return plan.judge(report)

    async def check_nothing_is_left(self) -> None:
        """Check that the host has no more than before: a warm container, as good as new."""
        found = await self.wrapper.containers({SITE: self.site})
        assert {item.name for item in found} == set(self.sandbox.idle)
        assert not found or self.form == "nested"
        warm = self._warm()
        for facts in warm:
            inside = inventory.inside(facts["State"]["Pid"])
            assert inside.left(self.like_new[facts["Image"]]) == []
        gone = self.used - {facts["Id"] for facts in warm}
        self.used -= gone
        assert inventory.traces(gone) == []

    def _warm(self) -> list[dict[str, Any]]:
        return [self.engine.inspect_container(name) for name in self.sandbox.idle]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    """Each form of sandbox, one after the other."""
    return str(request.param)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def hostile_wrapper(docker_url: str) -> AsyncIterator[DockerWrapper]:
    """A connection for all of these tests."""
    wrapper = DockerWrapper(docker_url)
    yield wrapper
    wrapper.close()


@pytest.fixture(scope="session")
def engine(docker_url: str) -> Iterator[docker.APIClient]:
    """The engine, for what only tests want to know."""
    client = docker.APIClient(base_url=docker_url, timeout=20)
    yield client
    client.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def rooms(
    hostile_wrapper: DockerWrapper, engine: docker.APIClient
) -> AsyncIterator[dict[str, Room]]:
    """All three forms; what is warm in the first serves many tests, as it serves many students."""
    made = {}
    for form in FORMS:
        site = uuid.uuid4().hex
        walls = {"nested": None, "fresh": Walls.NAMESPACES, "fresh-uid": Walls.UIDS}[form]
        sandbox = DockerSandbox(
            hostile_wrapper,
            site=site,
            boot=uuid.uuid4().hex,
            nested=form == "nested",
            walls=walls,
        )
        made[form] = Room(form, sandbox, hostile_wrapper, site, engine)
    yield made
    for room in made.values():
        await room.sandbox.close()
        assert await hostile_wrapper.containers({SITE: room.site}) == []


@pytest_asyncio.fixture(loop_scope="session")
async def room(rooms: dict[str, Room], form: str) -> Room:
    """The sandbox of a form."""
    await rooms[form].open()
    return rooms[form]


@pytest_asyncio.fixture(loop_scope="session")
async def lab(room: Room) -> AsyncIterator[Lab]:
    """Where programs are let loose without being graded; nothing is left afterwards."""
    lab = Lab(room.sandbox, Walls.UIDS if room.form == "fresh-uid" else Walls.NAMESPACES)
    yield lab
    room.used |= lab.used
    await room.check_nothing_is_left()
