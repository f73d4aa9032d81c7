"""What the documentation shows is what the code says."""

import re

from commserver.core import states
from tests.conftest import ROOT


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
