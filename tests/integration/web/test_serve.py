"""`make serve`: where the page is and who may look at it, said clearly."""

import io
import socket
from pathlib import Path

import pytest
from rich.console import Console

from commserver import demo
from commserver.trial import TrialFailed


def test_the_page_and_its_tokens_are_told(tmp_path: Path) -> None:
    out = io.StringIO()

    demo._invite(
        Console(file=out, width=60),
        "http://127.0.0.1:8080",
        {"ada": "a" * 43, "grace": "b" * 43},
        tmp_path / ("a long name " * 9),
    )

    lines = out.getvalue().splitlines()
    assert "The students' page:  http://127.0.0.1:8080" in lines
    assert f"  ada's token:       {'a' * 43}" in lines
    assert f"  grace's token:     {'b' * 43}" in lines
    assert any("commserver submit 1 FILE --state-dir" in line for line in lines)


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
