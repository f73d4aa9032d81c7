"""The files of the pages: what they are served as, and what must not be in them."""

import re
from pathlib import Path

import pytest

from commserver.web import assets

FILES = assets.load()
PAGE = "pages/student/index.html"


def test_every_file_of_the_pages_is_served() -> None:
    assert FILES[PAGE].type == "text/html; charset=utf-8"
    assert FILES["client/commserver.js"].type == "text/javascript; charset=utf-8"
    assert FILES["pages/base.css"].type == "text/css; charset=utf-8"
    assert FILES["pages/icon.svg"].type == "image/svg+xml"


def test_nothing_else_is(tmp_path: Path) -> None:
    for name in ("client/a.js", "pages/b.html", "pages/.hidden", "pages/c.py", "app.js"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")

    assert set(assets.load(tmp_path)) == {"client/a.js", "pages/b.html"}


def test_another_content_has_another_name() -> None:
    assert len({asset.etag for asset in FILES.values()}) == len(FILES)


@pytest.mark.parametrize(
    ("said", "held"),
    [("{}", True), ("W/{}", True), ('"x", {}', True), ("*", True), ('"x"', False), ("", False)],
)
def test_whoever_has_a_file_is_not_sent_it_again(said: str, held: bool) -> None:
    asset = FILES[PAGE]

    assert asset.held(said.format(asset.etag)) is held


def test_what_a_page_needs_is_there() -> None:
    text = FILES[PAGE].body.decode()
    wanted = re.findall(r'(?:src|href)="static/([^"]+)"', text)
    wanted += [
        str((Path(name).parent / found).as_posix())
        for name, asset in FILES.items()
        for found in re.findall(r'from "([^"]+)"', asset.body.decode())
    ]

    assert len(wanted) > 10
    assert [one for one in wanted if _plain(one) not in FILES] == []


def test_a_page_says_at_once_which_modules_it_will_need() -> None:
    preloaded = re.findall(r'rel="modulepreload" href="static/([^"]+)"', FILES[PAGE].body.decode())
    folder = Path(PAGE).parent
    wanted, new = set[str](), {(folder / "student.js").as_posix()}
    while new:
        wanted |= new
        new = {
            _plain((Path(name).parent / found).as_posix())
            for name in new
            for found in re.findall(r'from "([^"]+)"', FILES[name].body.decode())
        } - wanted

    assert {*preloaded, (folder / "student.js").as_posix()} == wanted
    assert len(preloaded) == len(set(preloaded))


def _plain(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def test_nothing_comes_from_elsewhere_and_nothing_stands_in_line() -> None:
    texts = {name: asset.body.decode() for name, asset in FILES.items()}
    markup = "".join(text for name, text in texts.items() if name.endswith(".html"))
    all_of_it = "".join(
        re.sub(r"https?://www\.w3\.org/2000/svg|wss://judge\.example\.org:8765", "", text)
        for text in texts.values()
    )

    assert not re.search(r"<style|<script(?![^>]* src=)|\bstyle=|\bon\w+=", markup)
    assert "://" not in all_of_it.replace("`${scheme}://${location.hostname}:${port}`", "")


@pytest.mark.parametrize("word", ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"])
def test_no_text_becomes_markup(word: str) -> None:
    assert [name for name, asset in FILES.items() if word in asset.body.decode()] == []


@pytest.mark.parametrize("word", ["localStorage", "document.cookie", "console."])
def test_no_token_is_kept_or_shown(word: str) -> None:
    assert [name for name, asset in FILES.items() if word in asset.body.decode()] == []


# -- colours: WCAG 2, 1.4.3 and 1.4.11 ---------------------------------------------------------

TONES = ("waiting", "good", "near", "bad", "fault", "void")
TEXTS = [
    *((f"{tone}", f"{tone}-ground") for tone in TONES),
    *((tone, "sheet") for tone in (*TONES, "ink", "soft")),
    *((text, "ground") for text in ("ink", "soft", "bad")),
    ("waiting", "ground"),
    ("ink", "void-ground"),
    ("on-accent", "accent"),
]
LINES = [("edge", "sheet"), ("edge", "ground"), ("accent", "sheet"), ("accent", "ground")]


def themes() -> dict[str, dict[str, str]]:
    light, _, dark = FILES["pages/base.css"].body.decode().partition("prefers-color-scheme: dark")
    found = {
        name: dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", text))
        for name, text in (("light", light), ("dark", dark))
    }
    assert found["light"].keys() == found["dark"].keys()
    return found


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everything_can_be_read(theme: str) -> None:
    colours = themes()[theme]

    low = [pair for pair in TEXTS if contrast(*(colours[name] for name in pair)) < 4.5]
    faint = [pair for pair in LINES if contrast(*(colours[name] for name in pair)) < 3]
    assert (low, faint) == ([], [])
