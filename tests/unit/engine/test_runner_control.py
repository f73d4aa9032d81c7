"""What a grader asks for over its socket, however it cuts or breaks its messages."""

import json
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from commserver.engine.runner import runner
from tests.unit.engine.test_runner_account import FakeCell, FakeStore
from tests.unit.engine.test_runner_request import PROCESS


class FakeTurn:
    """Starts no run, but remembers it."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.started: list[tuple[list[str], bytes, bytes]] = []
        self.stopped: list[object] = []
        self.events = 0
        self.handler: Callable[[int], None] | None = None
        self.run = FakeCell("learner")
        self.run.status = 0

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        self.events, self.handler = events, handler

    def forget(self, fd: int) -> None:
        self.handler = None

    def stop(self, cells: list[object], flag: int) -> None:
        self.stopped += cells

    def start_run(
        self, control: runner.Control, process: runner.Process, told: tuple[int, int]
    ) -> runner.Cell:
        stdin, more = (os.read(fd, 1 << 20) for fd in told)
        for fd in told:
            os.close(fd)
        self.started.append((process.argv, stdin, more))
        return self.run


class Asker:
    """The other end of the socket."""

    def __init__(self) -> None:
        self.socket, ours = socket.socketpair()
        self.turn = FakeTurn()
        self.cell = FakeCell("grader", may_run=[{**PROCESS, "name": "run", "files": []}])
        turn: Any = self.turn
        self.control = runner.Control(turn, self.cell, ours.detach())

    def turn_over(self) -> None:
        """Let the runner do all that it can."""
        for _ in range(1000):
            if self.turn.handler is None:
                return
            poll = select.poll()
            poll.register(self.control._fd, self.turn.events)
            events = poll.poll(0)
            if not events:
                return
            self.turn.handler(events[0][1])

    def say(self, header: object, body: bytes = b"", cut: int = 1 << 20) -> None:
        """Say a message, in pieces of this size."""
        head = json.dumps(header).encode()
        data = struct.pack(">II", len(head), len(body)) + head + body
        for start in range(0, len(data), cut):
            self.socket.sendall(data[start : start + cut])
            self.turn_over()

    def hear(self) -> tuple[dict[str, Any], bytes]:
        """The answer."""
        data = self.socket.recv(1 << 20)
        head, body = struct.unpack_from(">II", data)
        assert len(data) == 8 + head + body
        return json.loads(data[8 : 8 + head]), data[8 + head :]


@pytest.fixture
def asker() -> Iterator[Asker]:
    """One grader that may ask for one run."""
    asker = Asker()
    yield asker
    asker.control.close()
    asker.socket.close()


def ask(**changed: Any) -> dict[str, Any]:
    """What is asked for."""
    return {"run": "run", "args": ["x"], "stdin": 2, "input": 3, **changed}


@pytest.mark.parametrize("cut", [1, 7, 1 << 20])
def test_a_run_is_started_with_what_it_is_told(asker: Asker, cut: int) -> None:
    asker.say(ask(), b"ininp", cut)

    assert asker.turn.started == [(["./main", "x"], b"in", b"inp")]
    assert (asker.cell.borrowed, asker.turn.store.held) == (5, 5)
    asker.say(ask(args=["next"]), b"12345")  # is not heard before the first is answered
    assert len(asker.turn.started) == 1

    turn: Any = asker.turn
    sinks = [runner.Sink(turn.store, 100) for _ in range(3)]
    for sink, content in zip(sinks, (b"out", b"err", b"result"), strict=True):
        os.write(sink.theirs, content)
        os.close(sink.theirs)
        sink.drain()
    asker.control.answer(asker.turn.run, sinks)
    asker.turn_over()

    header, body = asker.hear()
    assert (header["exit"], header["flags"], header["stopped"]) == (0, 0, False)
    assert (header["stdout"], header["stderr"], header["result"]) == (3, 3, 6)
    assert body == b"outerrresult"
    assert [run["name"] for run in asker.cell.runs] == ["p"]
    assert asker.turn.started[1:] == [(["./main", "next"], b"12", b"345")]
    assert (asker.cell.borrowed, asker.turn.store.held) == (5, 5)


@pytest.mark.parametrize(
    "header",
    [
        [],
        {},
        ask(run="other"),
        ask(run=None),
        ask(args="x"),
        ask(args=["a\0"]),
        ask(stdin=3),
        ask(stdin=-1, input=6),
        ask(stdin=5.0, input=0),
    ],
)
def test_what_cannot_be_run_is_refused_and_the_next_is_heard(asker: Asker, header: object) -> None:
    asker.say(header, b"ininp", cut=3)

    answer, body = asker.hear()
    assert (list(answer), body) == (["error"], b"")
    assert (asker.turn.started, asker.cell.borrowed) == ([], 0)
    asker.say(ask(), b"ininp")
    assert len(asker.turn.started) == 1


def test_runs_are_bounded(asker: Asker) -> None:
    asker.cell.runs += [{}] * runner.MAX_RUNS

    asker.say(ask(), b"ininp")

    assert asker.hear()[0] == {"error": "more than 1000 runs"}
    assert asker.turn.started == []


@pytest.mark.parametrize("lengths", [(0, 0), (1 << 21, 0), (2, (64 << 20) + 1)])
def test_a_message_out_of_bounds_is_the_last(asker: Asker, lengths: tuple[int, int]) -> None:
    asker.socket.sendall(struct.pack(">II", *lengths))
    asker.turn_over()

    assert asker.hear()[0] == {"error": "the message is too long"}
    assert asker.socket.recv(1) == b""


@pytest.mark.parametrize("said", [b"", b"\0\0", struct.pack(">II", 5, 0) + b"{"])
def test_whoever_hangs_up_is_heard_no_more(asker: Asker, said: bytes) -> None:
    asker.socket.sendall(said)
    asker.turn_over()
    asker.socket.shutdown(socket.SHUT_RDWR)
    asker.turn_over()

    assert asker.turn.handler is None
    assert asker.turn.stopped == []


def test_the_run_of_whoever_hangs_up_is_ended(asker: Asker) -> None:
    asker.say(ask(), b"ininp")
    asker.socket.shutdown(socket.SHUT_RDWR)
    asker.turn_over()

    assert asker.turn.stopped == [asker.turn.run]
    asker.control.answer(asker.turn.run, [])
    assert [run["name"] for run in asker.cell.runs] == ["p"]
