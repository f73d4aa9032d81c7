from pathlib import Path

import pytest


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """Return a work directory of a teacher's program; the student's folder is inside of it."""
    (tmp_path / "box" / "submission").mkdir(parents=True)
    return tmp_path / "box"
