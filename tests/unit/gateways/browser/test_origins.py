"""Which pages may dial."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commserver.gateways.browser.origins import Origins

HOST = "judge.example:8765"


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://judge.example", HOST),
        ("http://judge.example:8080", HOST),
        ("https://JUDGE.example", "judge.EXAMPLE"),
        ("http://127.0.0.1:8080", "127.0.0.1:8765"),
        ("http://[::1]:8080", "[::1]:8765"),
    ],
)
def test_pages_of_the_host_that_is_dialled_may_whatever_their_port(origin: str, host: str) -> None:
    assert Origins([]).allow([origin], [host])


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://judge.example.evil.example",
        "https://notjudge.example",
        "https://judge.example@evil.example",
        "null",
        "",
        "judge.example",
        "https://[judge.example",
    ],
)
def test_pages_of_others_may_not(origin: str) -> None:
    assert not Origins([]).allow([origin], [HOST])


def test_who_is_no_browser_may() -> None:
    assert Origins([]).allow([], [HOST])


@pytest.mark.parametrize("host", [[], ["judge.example", "judge.example"], [""]])
def test_a_page_needs_one_host_to_be_its_own(host: list[str]) -> None:
    assert not Origins([]).allow(["https://judge.example"], host)


def test_two_origins_are_none() -> None:
    origins = Origins(["https://school.example"])

    assert not origins.allow(["https://school.example", "https://evil.example"], [HOST])


def test_listed_origins_may() -> None:
    origins = Origins(["https://School.example/", "null"])

    assert origins.allow(["https://school.example"], [HOST])
    assert origins.allow(["null"], [HOST])
    assert not origins.allow(["http://school.example"], [HOST])
    assert not origins.allow(["https://school.example:444"], [HOST])


def test_a_star_lets_all_pages_in() -> None:
    assert Origins(["*"]).allow(["https://evil.example"], [HOST])


@given(st.text(), st.text())
def test_no_header_makes_it_raise(origin: str, host: str) -> None:
    Origins([]).allow([origin], [host])
