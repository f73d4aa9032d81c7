"""The benchmarks measure what `make bench` finds: the engine of this checkout, not of a folder."""

import pytest

from benchmarks import drain

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.mark.usefixtures("docker_url")
async def test_drain_judges_everything_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "QUEUED", 4)
    monkeypatch.setattr(drain, "PATIENCE", 60.0)

    result = await drain.measure(full=False, seconds=0.0)

    assert (result["bench"], result["n"], result["unit"]) == ("drain", 4, "1/s")
    assert result["isolation"] in ("nested", "fresh-uid")
    assert isinstance(result["ours"], float)
    assert isinstance(result["floor"], float)
    assert 0 < result["ours"] < result["floor"]
