"""The benchmark that needs no engine, as people run it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("cluster")
def test_sweep_is_measured_beside_a_plain_scan(engine_name: str) -> None:
    command = [sys.executable, "-m", "benchmarks", "sweep", "--json", "--database", engine_name]

    said = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60.0, check=True).stdout

    result = json.loads(said)
    assert (result["bench"], result["unit"], result["attempts"]) == ("sweep", "ms", 100_000)
    assert result["n"] > 1
    assert result["ratio"] == round(result["ours"] / result["floor"], 3)
    assert result["database"].startswith(engine_name)
