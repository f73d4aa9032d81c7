"""The JavaScript, tested in its own language: the client, and what the page says."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT, missing

CLIENT = ROOT / "commserver" / "web" / "client" / "commserver.js"
WORDS = ROOT / "commserver" / "web" / "pages" / "student" / "words.js"
LONGEST = 310  # lines: it is read whole by those who embed it


@cache
def run(name: str) -> subprocess.CompletedProcess[str]:
    node = shutil.which("node")
    if node is None:
        missing("there is no node to test the JavaScript with: install the Debian package nodejs")
    return subprocess.run(
        [node, "--test", "--test-reporter=tap", str(Path(__file__).with_name(name))],
        env={"CLIENT": CLIENT.as_uri(), "WORDS": WORDS.as_uri(), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(("name", "tests"), [("client.test.mjs", 30), ("words.test.mjs", 15)])
def test_it_does_what_its_own_tests_say(name: str, tests: int) -> None:
    done = run(name)

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    count = re.search(r"^# pass (\d+)$", done.stdout, re.MULTILINE)
    assert count
    assert int(count[1]) > tests


def test_the_client_needs_nothing_else_and_is_small() -> None:
    text = CLIENT.read_text()

    assert not re.search(r"^\s*import\b|\bimport\(|\brequire\(", text, re.MULTILINE)
    assert len(text.splitlines()) < LONGEST


@pytest.mark.parametrize(
    "word", ["localStorage", "sessionStorage", "document.cookie", "console.", "innerHTML", "eval("]
)
def test_the_client_keeps_and_shows_no_token(word: str) -> None:
    assert word not in CLIENT.read_text()
