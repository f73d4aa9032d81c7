"""Which images are built, from what, and when not: on an engine that only keeps names."""

import io
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from commserver.engine import images
from commserver.engine.images import CONTEXT, build_all, image_folders, pack_context
from commserver.engine.wrapper import DockerWrapper, ImageInfo
from commserver.errors import ImageMissing, SandboxError


class FakeEngine(DockerWrapper):
    """Keeps images by name and writes down what it was asked to build."""

    def __init__(self) -> None:
        super().__init__("unix:///nowhere")
        self.names: dict[str, ImageInfo] = {}
        self.built: list[tuple[str, Mapping[str, str]]] = []
        self.removed: list[str] = []

    def add(self, name: str, labels: Mapping[str, str] | None = None) -> ImageInfo:
        number = len(self.built) + len(self.names)
        self.names[name] = ImageInfo(f"sha256:{number:064}", (name,), labels or {})
        return self.names[name]

    async def image(self, name: str) -> ImageInfo:
        for known, info in self.names.items():
            if name in (known, info.id):
                return info
        raise ImageMissing(name)

    async def build(
        self,
        context: bytes,
        tag: str,
        *,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        deadline: float = 0.0,
    ) -> None:
        self.built.append((tag, arguments))
        self.add(tag, labels)

    async def tag(self, image: str, repository: str, tag: str) -> None:
        info = self.names[image]
        self.names[image] = replace(info, tags=(*info.tags, f"{repository}:{tag}"))

    async def remove_image(self, name: str) -> None:
        self.removed.append(name)


@pytest.fixture
def engine() -> FakeEngine:
    """An engine that has a Debian."""
    engine = FakeEngine()
    engine.add("debian:bookworm-slim")
    return engine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images: the base, one on it, and a teacher's on that."""
    for name, text in {
        "base": "ARG BASE\nFROM $BASE\n",
        "c": "ARG BASE\nFROM $BASE\nRUN apt-get install gcc\n",
        "c-extra": "FROM commserver/c:latest\nCOPY lib.h /usr/include/\n",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "Dockerfile").write_text(text)
    (tmp_path / "c-extra" / "lib.h").write_text("#define X 1\n")
    (tmp_path / "no-image").mkdir()
    return tmp_path


async def build(engine: FakeEngine, folder: Path, *names: str, **environ: str) -> list[str]:
    """The tags that a call built."""
    before = len(engine.built)
    await build_all(
        engine, names or None, images_dir=folder, say=lambda line: None, environ=environ
    )
    return [tag for tag, _ in engine.built[before:]]


async def test_each_image_is_built_after_what_it_stands_on(
    engine: FakeEngine, folder: Path
) -> None:
    assert await build(engine, folder) == [
        "commserver/base:latest",
        "commserver/c:latest",
        "commserver/c-extra:latest",
    ]
    by_tag = dict(engine.built)
    assert by_tag["commserver/base:latest"]["BASE"] == engine.names["debian:bookworm-slim"].id
    assert by_tag["commserver/c:latest"]["BASE"] == engine.names["commserver/base:latest"].id
    assert by_tag["commserver/c-extra:latest"]["BASE"] == engine.names["commserver/c:latest"].id


async def test_what_has_not_changed_is_not_built_again(engine: FakeEngine, folder: Path) -> None:
    said: list[str] = []
    await build(engine, folder)

    await build_all(engine, images_dir=folder, say=said.append, environ={})

    assert len(engine.built) == 3
    assert said == [
        f"image commserver/{name}:latest: up to date" for name in ("base", "c", "c-extra")
    ]


async def test_a_change_goes_up_but_not_down(engine: FakeEngine, folder: Path) -> None:
    await build(engine, folder)
    old = engine.names["commserver/c-extra:latest"]

    (folder / "c-extra" / "lib.h").write_text("#define X 2\n")

    assert await build(engine, folder) == ["commserver/c-extra:latest"]
    assert old.id in engine.removed
    (folder / "c" / "Dockerfile").write_text("ARG BASE\nFROM $BASE\nRUN true\n")
    assert await build(engine, folder) == ["commserver/c:latest", "commserver/c-extra:latest"]


async def test_a_new_runner_changes_every_image_but_the_base(
    engine: FakeEngine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await build(engine, folder)
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "runner.py").write_text("# newer\n")

    monkeypatch.setattr(images, "RUNNER_FOLDER", newer)

    assert await build(engine, folder) == ["commserver/c:latest", "commserver/c-extra:latest"]


async def test_only_what_was_asked_for_is_built(engine: FakeEngine, folder: Path) -> None:
    assert await build(engine, folder, "c") == ["commserver/base:latest", "commserver/c:latest"]
    with pytest.raises(SandboxError, match="nothing/Dockerfile"):
        await build(engine, folder, "nothing")


async def test_the_base_gets_a_name_by_its_content(engine: FakeEngine, folder: Path) -> None:
    await build(engine, folder, "base")

    base = engine.names["commserver/base:latest"]
    assert base.tags[1] == f"commserver/base:{base.labels[CONTEXT][:12]}"


async def test_proxies_reach_the_build(engine: FakeEngine, folder: Path) -> None:
    await build(engine, folder, "base", HTTP_PROXY="http://p:1", no_proxy="", OTHER="x")

    assert {key for _, arguments in engine.built for key in arguments} == {"BASE", "HTTP_PROXY"}


async def test_a_base_whose_debian_lost_its_name_is_kept(engine: FakeEngine, folder: Path) -> None:
    await build(engine, folder)

    del engine.names["debian:bookworm-slim"]

    assert await build(engine, folder) == []


async def test_who_can_make_no_debian_is_told_what_to_do(
    engine: FakeEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.names.clear()
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    with pytest.raises(SandboxError, match=r"apt-get install mmdebstrap.*COMMSERVER_PULL=1"):
        await build(engine, folder)


def test_a_context_is_the_same_bytes_for_the_same_content(folder: Path) -> None:
    first = pack_context(folder / "c-extra", "FROM x\n", with_runner=True)
    (folder / "c-extra" / "lib.h").touch()

    assert pack_context(folder / "c-extra", "FROM x\n", with_runner=True) == first
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        names = tar.getnames()
    assert names == sorted(names)
    assert {"Dockerfile", "lib.h", "commserver-runner/runner.py"} <= set(names)


def test_our_programs_are_copied_with_their_folders_and_nothing_else(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "ours"
    for name in ("runner.py", "__init__.py", "stand_in/subprocess.py", "__pycache__/runner.pyc"):
        (ours / name).parent.mkdir(parents=True, exist_ok=True)
        (ours / name).write_text("")
    monkeypatch.setattr(images, "RUNNER_FOLDER", ours)

    context = pack_context(folder / "c", "FROM x\n", with_runner=True)

    with tarfile.open(fileobj=io.BytesIO(context)) as tar:
        assert tar.getnames() == [
            "Dockerfile",
            "commserver-runner/runner.py",
            "commserver-runner/stand_in/subprocess.py",
        ]


def test_folders_without_a_dockerfile_are_none_of_ours(folder: Path) -> None:
    assert set(image_folders(folder)) == {"base", "c", "c-extra"}
