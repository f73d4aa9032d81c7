"""`make serve`: where the page is and who may look at it, said clearly."""

import asyncio
import io
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from commserver import demo, operations
from commserver.config import Config
from commserver.services import exercise_folder
from commserver.trial import TrialFailed
from tests.conftest import ROOT


def test_the_page_and_its_tokens_are_told(tmp_path: Path) -> None:
    out = io.StringIO()
    folder = ROOT / "examples" / "c-101" / "sum"

    demo._invite(
        Console(file=out, width=60),
        "http://127.0.0.1:8080",
        {"ada": "a" * 43, "grace": "b" * 43},
        [demo.Lesson(7, exercise_folder.read(folder))],
        tmp_path / ("a long name " * 9),
    )

    lines = out.getvalue().splitlines()
    assert "The students' page:  http://127.0.0.1:8080" in lines
    assert f"  ada's token:       {'a' * 43}" in lines
    assert f"  grace's token:     {'b' * 43}" in lines
    assert "  exercise 7: Add them up (c; file: main.c)" in lines
    [line] = [line for line in lines if " submit 7 " in line]
    assert "right.c --username ada --state-dir '" in line


@pytest.mark.parametrize("started", ["commserver", "cli.py"])
async def test_the_command_that_is_told_works_as_it_stands(
    outside: None,
    sqlite_template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    started: str,
) -> None:
    """Save that nobody is told of the attempt: the port for that is the same on a whole machine."""
    shutil.copy(sqlite_template, tmp_path / "commserver.db")
    state = Config(state_dir=tmp_path)
    async with operations.admin(state) as admin:
        lessons = await demo.imported(admin)
        await admin.account("ada")
    monkeypatch.setattr(sys, "argv", [str(Path(sys.executable).with_name(started))])

    [lesson] = [one for one in lessons if one.folder.definition.key == "sum"]
    line = demo.handing_in(lesson, "ada", tmp_path)
    done = await asyncio.to_thread(
        subprocess.run,
        ["sh", "-c", f"{line} --push ''"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    with closing(sqlite3.connect(tmp_path / "commserver.db")) as database:
        query = "SELECT username, exercise_id, name FROM codes JOIN user_exercises ON"
        query += " user_exercises.id = user_exercise_id JOIN accounts ON accounts.id = account_id"
        assert database.execute(query).fetchall() == [("ada", lesson.exercise, "main.c")]


async def test_ports_are_always_the_same() -> None:
    ports = demo.WEBSOCKET_PORT, demo.PAGE_PORT, demo.BACKEND_PORT, demo.SUBMIT_PORT

    assert ports == (8765, 8080, 9500, 9501)


async def test_a_port_that_is_taken_is_told_in_one_line_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for name in ("WEBSOCKET_PORT", "BACKEND_PORT", "SUBMIT_PORT"):
            monkeypatch.setattr(demo, name, 0)
        monkeypatch.setattr(demo, "PAGE_PORT", port)

        with pytest.raises(TrialFailed) as caught:
            await demo.run(tmp_path, keep=True, console=Console(file=io.StringIO()))

    assert f"port {port} of this machine is taken" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "serve").exists()
