"""A real container engine, our images on it, and after each test: nothing left, and still well."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from commserver.engine.container import SITE
from commserver.engine.frames import Walls
from commserver.engine.sandbox import DockerSandbox
from commserver.engine.wrapper import DockerWrapper
from tests.lab import DOUBLE, Lab, Ran


async def until_nothing_is_left(wrapper: DockerWrapper) -> None:
    """Try as a server does, only oftener: no event tells that a creation came true after all."""
    for _ in range(500):
        if await wrapper.remove_leftovers() == 0:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(wrapper.leftovers)


@pytest.fixture
async def wrapper(docker_url: str) -> AsyncIterator[DockerWrapper]:
    """A connection of this test's own."""
    wrapper = DockerWrapper(docker_url)
    yield wrapper
    await until_nothing_is_left(wrapper)
    wrapper.close()


@pytest.fixture(scope="session")
def site() -> str:
    """The site of this whole session: other people's containers are not ours to look at."""
    return uuid.uuid4().hex


@pytest.fixture(params=[Walls.NAMESPACES, Walls.UIDS])
def walls(request: pytest.FixtureRequest) -> Walls:
    """Both forms of container, one after the other."""
    assert isinstance(request.param, Walls)
    return request.param


@pytest.fixture
async def sandbox(wrapper: DockerWrapper, site: str) -> AsyncIterator[DockerSandbox]:
    """A sandbox that must be as good after the test as it was before."""
    sandbox = DockerSandbox(wrapper, site=site, boot=uuid.uuid4().hex)
    yield sandbox
    left = await wrapper.containers({SITE: site})
    assert {item.name for item in left} == set(sandbox.idle)
    after = await sandbox.execute(DOUBLE, run="afterwards", slot=0)
    ran = Ran.of(after.cases[0].stages[0])
    assert (ran.end, ran.stdout) == ((0, 0), b"42\n")
    await sandbox.close()
    assert await wrapper.containers({SITE: site}) == []


@pytest.fixture
async def lab(wrapper: DockerWrapper, site: str, walls: Walls) -> AsyncIterator[Lab]:
    """Where hostile programs are let loose, and after which nothing is left."""
    sandbox = DockerSandbox(wrapper, site=site, boot=uuid.uuid4().hex, nested=False, walls=walls)
    yield Lab(sandbox, walls)
    assert await wrapper.containers({SITE: site}) == []
