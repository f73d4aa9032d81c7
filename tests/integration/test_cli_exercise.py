"""The exercise commands on a real engine and a real database, as a teacher uses them."""

import json
import shutil
import sqlite3
import sys
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from commserver import app, cli, logs
from commserver.config import Config, Docker
from commserver.engine.container import SITE
from commserver.engine.wrapper import DockerWrapper
from tests.integration.test_cli import Ran

Run = Callable[..., Ran]
KINDS = [(kind, name) for kind in ("tests", "script", "pipeline") for name in ("python", "c")]


@pytest.fixture
def run(
    outside: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    sqlite_template: Path,
) -> Run:
    """Run an exercise command in this process, for a site in `./var`, without any engine."""
    (tmp_path / "var").mkdir()
    shutil.copy(sqlite_template, tmp_path / "var" / "commserver.db")
    monkeypatch.setattr(logs, "configure", lambda *_: None)  # loggers remember their stream

    def call(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["commserver", "exercise", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return Ran(code, *capsys.readouterr())

    return call


@pytest.fixture
def with_engine(run: Run, docker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be the engine that this machine has."""
    monkeypatch.setenv("COMMSERVER_DOCKER__HOSTS", json.dumps([docker_url]))


def imported(folder: Path) -> int:
    """Return how many graders a site's database has."""
    with closing(sqlite3.connect(folder / "var" / "commserver.db")) as database:
        [(number,)] = database.execute("SELECT count(*) FROM scripts").fetchall()
    assert isinstance(number, int)
    return number


def contents(folder: Path) -> dict[str, bytes]:
    """Return what is in a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.usefixtures("with_engine")
def test_every_new_exercise_passes_its_check_and_can_be_tried_and_imported(
    run: Run, tmp_path: Path
) -> None:
    names = [f"{kind}-{language}" for kind, language in KINDS]
    for kind, language in KINDS:
        made = run("new", f"{kind}-{language}", "--kind", kind, "--language", language)
        assert made.code == 0

    checked = run("check", *names, "--json")

    assert json.loads(checked.out)["good"], checked.out
    assert checked.code == 0
    student = run("try", "pipeline-c", "pipeline-c/solutions/wrong.c", "--as", "student")
    assert student.code == 0
    assert "wrong_answer, 0 of 20" in student.out
    assert "not found in 4 tries" in student.out, "its judge says so"
    assert run("calibrate", "script-python", "--times", "1").code == 0
    # What does not get what it must is not imported, except by force.
    shutil.copy("script-python/solutions/wrong.py", "script-python/solutions/right.py")
    refused = run("import", "script-python")
    assert (refused.code, refused.out, imported(tmp_path)) == (1, "", 0)
    assert "accepted" in refused.err
    assert "nothing was imported" in refused.err
    assert run("import", "script-python", "--force").out == "1\tscript-python\n"
    assert run("import", "pipeline-python").out == "2\tpipeline-python\n"
    assert imported(tmp_path) == 2


async def test_what_a_killed_check_left_is_removed_by_the_next(docker_url: str) -> None:
    wrapper = DockerWrapper(docker_url)
    site = {SITE: app.REHEARSALS}
    common = {"Image": "commserver/python", "Labels": site, "NetworkDisabled": True}
    ended, running = f"commserver-{uuid.uuid4()}", f"commserver-{uuid.uuid4()}"
    try:
        await wrapper.create(ended, {**common, "Entrypoint": ["/bin/true"]})
        await wrapper.create(running, {**common, "Entrypoint": ["/bin/sleep", "60"]})
        await wrapper.start(ended)
        await wrapper.start(running)
        await wrapper.wait(ended)

        async with app.rehearsals(Config(docker=Docker(hosts=(docker_url,)))):
            names = {found.name for found in await wrapper.containers(site)}

        assert ended not in names
        assert running in names, "another check is under way in it"
    finally:
        await wrapper.discard(ended)
        await wrapper.discard(running)
        wrapper.close()


def test_what_is_imported_is_exported_again(run: Run, tmp_path: Path) -> None:
    run("new", "mine", "--kind", "tests")
    (tmp_path / "mine" / "given").mkdir()
    (tmp_path / "mine" / "given" / "table.bin").write_bytes(bytes(range(256)) * 1000)
    assert run("import", "mine", "--force").code == 0

    ran = run("export", "mine", "copy")

    assert ran == (0, "exercise 1, 'mine': 10 files in copy\n", "")
    assert contents(tmp_path / "copy") == contents(tmp_path / "mine")
    assert run("export", "1", "copy").code == 2
    assert run("export", "yours", "other").lines == ["no exercise yours"]
    stats = run("stats", "mine")
    assert (stats.code, stats.out) == (0, "exercise 1: mine\n0 runs\n")
    told = json.loads(run("stats", "1", "--json").out)
    assert (told["exercise"], told["runs"], told["cases"]) == (1, 0, [])


def test_that_there_are_no_solutions_is_said_and_needs_no_engine(run: Run, tmp_path: Path) -> None:
    run("new", "mine")
    definition = tmp_path / "mine" / "exercise.toml"
    definition.write_text(definition.read_text().split("[solutions]")[0])

    ran = run("check", "mine")

    assert ran.code == 0
    assert ran.out.splitlines()[-1] == "mine: there are no solutions: nothing was run"


def test_without_an_engine_one_sentence_says_so(run: Run, tmp_path: Path) -> None:
    run("new", "mine")

    for command in (["check", "mine", "--json"], ["import", "mine"], ["calibrate", "mine"]):
        ran = run(*command)

        assert (ran.code, ran.out, imported(tmp_path)) == (2, "", 0)
        assert ran.lines[0].startswith("no container engine answers at unix://")
        assert len(ran.lines) == 2
