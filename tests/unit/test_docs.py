"""What the documentation shows is what the code says."""

import re

from commserver.core import states
from commserver.dao.postgresql import PARAMETERS
from tests.conftest import ROOT

FOLDERS = ("hostile/", "integration/", "end_to_end/", "unit/")  # of tests


def test_the_diagram_of_states_is_printed_from_the_table() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()

    assert f"```mermaid\n{states.diagram()}\n```" in page


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text())
        if not link.startswith("https://")
    ]

    assert links
    assert not [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()]


def test_the_page_on_the_database_knows_every_parameter_and_only_events_that_are_logged() -> None:
    page = (ROOT / "docs" / "database.md").read_text()
    [parameters] = re.findall(r"^- \*\*Parameters\*\*(.*?)^- ", page, re.MULTILINE | re.DOTALL)
    events = re.findall(r"^\| `(\w+)` \|", page.partition("## What the log says")[2], re.MULTILINE)
    code = "".join(path.read_text() for path in (ROOT / "commserver").rglob("*.py"))

    assert all(f"`{name}`" in parameters for name in PARAMETERS)
    assert len(events) == 7
    assert [event for event in events if f'("{event}"' not in code] == []


def test_the_page_on_the_sandbox_names_tests_that_there_are() -> None:
    page = (ROOT / "docs" / "sandbox.md").read_text()
    walls = page.partition("## The walls")[2].partition("## What is measured")[0]
    named = re.findall(r"`([\w/]+(?:\.py)?)/?(?:::(\w+))?`", walls)
    tests = [(path, test) for path, test in named if path.startswith(FOLDERS)]

    assert len(tests) > 15
    for path, test in tests:
        text = (ROOT / "tests" / path).read_text() if path.endswith(".py") else ""
        assert (ROOT / "tests" / path).exists(), path
        assert f"def {test}(" in text or not test, test
    rows = [row for row in walls.splitlines() if row.startswith("| ")][1:]
    assert [row for row in rows if not any(f"`{path}" in row for path, _ in tests)] == []
