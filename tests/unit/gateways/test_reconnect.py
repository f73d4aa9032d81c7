"""Pauses before dialling again."""

from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.gateways.reconnect import BackOff


def longest() -> float:
    return 1.0


def shortest() -> float:
    return 0.0


def test_pauses_double_up_to_the_most() -> None:
    back_off = BackOff(0.2, 1.0, jitter=longest)

    pauses = [back_off.pause() for _ in range(5)]

    assert pauses == [0.2, 0.4, 0.8, 1.0, 1.0]


def test_jitter_takes_up_to_half_of_a_pause_away() -> None:
    back_off = BackOff(0.2, 1.0, jitter=shortest)

    pauses = [back_off.pause() for _ in range(5)]

    assert pauses == [0.1, 0.2, 0.4, 0.5, 0.5]


def test_success_starts_from_the_first_pause_again() -> None:
    back_off = BackOff(0.2, 1.0, jitter=longest)
    for _ in range(4):
        back_off.pause()

    back_off.reset()

    assert back_off.pause() == 0.2


def test_even_the_first_pause_is_not_above_the_most() -> None:
    back_off = BackOff(20.0, 1.0, jitter=longest)

    first = back_off.pause()
    back_off.reset()

    assert (first, back_off.pause()) == (1.0, 1.0)


@settings(deadline=None)
@given(st.floats(0.001, 100), st.floats(0.001, 100), st.integers(0, 50))
def test_every_pause_is_between_half_a_step_and_the_most(
    first: float, most: float, failures: int
) -> None:
    back_off = BackOff(first, most)

    pauses = [back_off.pause() for _ in range(failures)]

    assert all(min(first, most) / 2 <= pause <= most for pause in pauses)
