"""Images on a real engine: built once, refused with a reason, and never left half-made."""

import io
import tarfile
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from commserver.engine.images import build_all
from commserver.engine.sandbox import DockerSandbox
from commserver.engine.wrapper import DockerWrapper
from commserver.errors import ImageMissing, SandboxError
from tests.conftest import ROOT
from tests.lab import DOUBLE

pytestmark = pytest.mark.docker


@pytest.fixture
async def name(wrapper: DockerWrapper) -> AsyncIterator[str]:
    """An image's name that is free again afterwards."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    yield name
    try:
        await wrapper.remove_image(f"commserver/{name}:latest")
    except ImageMissing:
        return


def write(folder: Path, name: str, dockerfile: str) -> None:
    """An image's folder, beside those that it may stand on."""
    for other in ("base", "python"):
        (folder / other).mkdir(exist_ok=True)
        content = (ROOT / "images" / other / "Dockerfile").read_bytes()
        (folder / other / "Dockerfile").write_bytes(content)
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "Dockerfile").write_text(dockerfile)


async def test_a_teachers_own_image_can_be_used_at_once(
    sandbox: DockerSandbox, wrapper: DockerWrapper, name: str, tmp_path: Path
) -> None:
    said: list[str] = []
    write(tmp_path, name, "FROM commserver/python:latest\nUSER 1000\n")

    await build_all(wrapper, [name], images_dir=tmp_path, say=said.append)
    await build_all(wrapper, [name], images_dir=tmp_path, say=said.append)

    assert said[-1] == f"image commserver/{name}:latest: up to date"
    assert sum("building" in line for line in said) == 1
    assert name in await sandbox.languages()
    report = await sandbox.execute(replace(DOUBLE, image=name), run="own", slot=0)
    assert report.cases[0].stages[0].artifacts[0].content == b"42\n"
    await sandbox.close()  # an image that a container waits with cannot be removed


async def test_a_step_that_fails_is_told_with_what_it_printed(
    sandbox: DockerSandbox, wrapper: DockerWrapper, name: str, tmp_path: Path
) -> None:
    write(tmp_path, name, "ARG BASE\nFROM $BASE\nRUN echo the reason && exit 7\n")

    with pytest.raises(SandboxError, match=r"(?s)returned a non-zero code: 7.*the reason"):
        await build_all(wrapper, [name], images_dir=tmp_path, say=print)

    assert name not in await sandbox.languages()


async def test_an_empty_archive_never_becomes_a_base(
    wrapper: DockerWrapper, tmp_path: Path
) -> None:
    archive = tmp_path / "root.tar"
    with tarfile.open(archive, "w") as tar:
        entry = tarfile.TarInfo("etc/hostname")
        tar.addfile(entry, io.BytesIO(b""))
    write(tmp_path, "x", "FROM scratch\n")

    with pytest.raises(SandboxError, match="no Debian with Python"):
        await build_all(wrapper, ["base"], images_dir=tmp_path, base=archive, say=print)

    with pytest.raises(ImageMissing):
        await wrapper.image("commserver/root:unchecked")
