"""Whose connection it is behind proxies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commserver.errors import ConfigError
from commserver.gateways.proxies import Proxies, neighbourhood


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.7", [], "198.51.100.7"),
        ("198.51.100.7", ["192.0.2.9"], "198.51.100.7"),  # anybody can write that
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.9"], "192.0.2.9"),
        ("10.0.0.1", ["203.0.113.1, 192.0.2.9"], "192.0.2.9"),  # the left one was sent along
        ("10.0.0.1", ["203.0.113.1", "192.0.2.9"], "192.0.2.9"),
        ("10.0.0.1", ["203.0.113.1, 192.0.2.9, 10.0.0.2"], "192.0.2.9"),
        ("10.0.0.1", ["192.0.2.9, 10.0.0.2", "fd00::3"], "192.0.2.9"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["192.0.2.9, nonsense, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.9:1234"], "192.0.2.9"),
        ("10.0.0.1", ["[2001:db8::1]:1234"], "2001:db8::1"),
        ("10.0.0.1", ["2001:DB8:0::1"], "2001:db8::1"),
        ("fd00::3", ["192.0.2.9"], "192.0.2.9"),
        ("::ffff:10.0.0.1", ["::ffff:192.0.2.9"], "192.0.2.9"),
        ("fe80::1%eth0", [], "fe80::1"),
        ("", ["192.0.2.9"], ""),
    ],
)
def test_the_rightmost_address_that_no_trusted_proxy_has_is_the_clients(
    peer: str, forwarded: list[str], client: str
) -> None:
    assert Proxies(["10.0.0.0/8", "fd00::3"]).client(peer, forwarded) == client


def test_without_trusted_proxies_the_header_never_counts() -> None:
    assert Proxies([]).client("127.0.0.1", ["192.0.2.9"]) == "127.0.0.1"


def test_every_proxy_that_is_no_address_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        Proxies(["10.0.0.1", "proxy.example", "10.0.0.1/8"], "browser.trusted_proxies")

    assert len(caught.value.problems) == 2
    assert all(each.startswith("browser.trusted_proxies: ") for each in caught.value.problems)


@given(st.text(max_size=50), st.lists(st.text(max_size=50), max_size=3))
def test_no_header_makes_it_raise(peer: str, forwarded: list[str]) -> None:
    proxies = Proxies(["0.0.0.0/0", "::/0"])

    assert isinstance(neighbourhood(proxies.client(peer, forwarded)), str)
    assert isinstance(proxies.client("10.0.0.1", [peer, *forwarded]), str)


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_an_ipv6_address_counts_with_all_of_its_64(one: str, other: str, together: bool) -> None:
    assert (neighbourhood(one) == neighbourhood(other)) is together
