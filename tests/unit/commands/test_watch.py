"""What `commserver watch` makes of packets, and where it takes a token and an address from."""

import getpass
import io
import sys
from pathlib import Path

import pytest

from commserver.commands.watch import Line, Places, read_token
from commserver.errors import ConfigError


def place(number: str, *, attempt: str = "42", run: str = "r") -> dict[str, str]:
    return {"cmd": "PLACE_IN_QUEUE", "user_exercice_id": attempt, "place": number, "run": run}


def executed(seq: str, *, attempt: str = "42", run: str = "r") -> dict[str, str]:
    told = {"cmd": "EXERCICE_EXECUTED", "id": attempt, "run": run, "seq": seq}
    return told | {"status": "accepted", "grade": "20"}


PROGRESS = {
    "cmd": "PROGRESS",
    "user_exercice_id": "42",
    "run": "r",
    "stage": "run",
    "text": "3/10",
}


@pytest.fixture
def places() -> Places:
    return Places()


def test_a_place_falls_begins_and_becomes_a_result(places: Places) -> None:
    for packet, says in (
        (place("3"), "place 3"),
        (place("1"), "place 1"),
        (place("0"), "running"),
        (PROGRESS, "running: run 3/10"),
        (executed("7"), "accepted, grade 20"),
    ):
        line = places.take(packet)
        assert line == Line("42", says, open=packet["cmd"] != "EXERCICE_EXECUTED", run="r")


def test_something_waits_until_its_end_has_come(places: Places) -> None:
    places.take(place("3"))
    places.take(place("1", attempt="43"))
    places.take(executed("1"))
    assert places.waiting

    places.take(executed("2", attempt="43"))

    assert not places.waiting


def test_a_final_that_is_sent_again_is_shown_once(places: Places) -> None:
    places.take(executed("7"))

    assert places.take(executed("7")) is None
    assert places.take(executed("6", attempt="43")) is None
    assert places.take(executed("8")) is not None


def test_progress_that_its_end_has_overtaken_opens_nothing(places: Places) -> None:
    places.take(place("1"))
    places.take(executed("1"))

    assert places.take(PROGRESS) is None
    assert not places.waiting


def test_the_next_run_of_an_attempt_that_ended_waits_again(places: Places) -> None:
    places.take(executed("1"))

    assert places.take(place("4", run="newer")) == Line("42", "place 4", open=True, run="newer")


def test_an_error_that_ends_a_run_says_why(places: Places) -> None:
    ended = {"cmd": "ERROR", "error_code": "500", "target": "EXERCICE", "target_id": "42"}
    ended |= {"seq": "1", "run": "r", "message": "the grader crashed"}

    assert places.take(ended) == Line("42", "not graded: the grader crashed", open=False, run="r")


def test_an_error_about_a_container_is_its_attempts(places: Places) -> None:
    places.take(place("0"))
    ended = {"cmd": "ERROR", "error_code": "500", "target": "CONTAINER", "target_id": "box"}
    ended |= {"seq": "1", "run": "r"}

    assert places.take(ended) == Line("42", "not graded: error 500", open=False, run="r")
    assert not places.waiting


@pytest.mark.parametrize(
    "packet",
    [{}, {"cmd": "OK"}, {"cmd": "NEW"}, {"cmd": "ERROR", "error_code": "404", "target": "OTHER"}],
)
def test_what_answers_a_command_or_is_unknown_changes_nothing(
    places: Places, packet: dict[str, str]
) -> None:
    assert places.take(packet) is None
    assert not places.lines


def test_the_newest_news_comes_last(places: Places) -> None:
    places.take(place("1", attempt="1"))
    places.take(place("2", attempt="2"))
    places.take(place("0", attempt="1"))

    assert list(places.lines) == ["2", "1"]


# -- the token ------------------------------------------------------------------------------------


def test_the_token_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret\n")

    assert read_token(file) == "secret"


def test_the_token_is_read_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("secret\nmore\n"))

    assert read_token(None) == "secret"


def test_a_person_is_asked_without_an_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(getpass, "getpass", lambda prompt: "secret")

    assert read_token(None) == "secret"


@pytest.mark.parametrize("text", ["", "\n", "  \n"])
def test_an_empty_token_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)

    with pytest.raises(ConfigError, match="the token is empty"):
        read_token(file)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_token(tmp_path / "missing")
