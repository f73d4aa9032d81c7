"""The order of things on one browser's socket."""

import pytest

from commserver.errors import NotAllowed, NotAuthenticated
from commserver.gateways.browser.protocol import BrowserProtocol, Phase


@pytest.fixture
def protocol() -> BrowserProtocol[str]:
    return BrowserProtocol(failures=3)


def test_a_socket_begins_as_a_stranger(protocol: BrowserProtocol[str]) -> None:
    assert protocol.phase is Phase.STRANGER
    with pytest.raises(NotAuthenticated):
        protocol.known()


def test_the_first_identity_binds_it(protocol: BrowserProtocol[str]) -> None:
    first = protocol.bind("ada")

    assert first
    assert (protocol.phase, protocol.known()) == (Phase.KNOWN, "ada")


def test_the_same_identity_again_changes_nothing(protocol: BrowserProtocol[str]) -> None:
    protocol.bind("ada")

    assert not protocol.bind("ada")
    assert protocol.known() == "ada"


def test_another_identity_is_not_allowed_and_the_binding_stays(
    protocol: BrowserProtocol[str],
) -> None:
    protocol.bind("ada")

    with pytest.raises(NotAllowed) as caught:
        protocol.bind("grace")

    assert (caught.value.kind, caught.value.id) == ("", "")
    assert (protocol.phase, protocol.known()) == (Phase.KNOWN, "ada")


def test_the_third_failure_bars_a_stranger(protocol: BrowserProtocol[str]) -> None:
    phases = []
    for _ in range(3):
        protocol.failed()
        phases.append(protocol.phase)

    assert phases == [Phase.STRANGER, Phase.STRANGER, Phase.BARRED]


def test_failures_before_a_right_token_bar_nobody_after_it(protocol: BrowserProtocol[str]) -> None:
    protocol.failed()
    protocol.failed()
    protocol.bind("ada")
    protocol.failed()

    assert protocol.phase is Phase.KNOWN


def test_who_is_barred_stays_so_for_the_first_reason(protocol: BrowserProtocol[str]) -> None:
    protocol.bind("ada")

    protocol.bar("gone")
    protocol.bar("too many")

    assert (protocol.phase, protocol.reason) == (Phase.BARRED, "gone")
