"""How often is too often."""

from hypothesis import given
from hypothesis import strategies as st

from commserver.gateways.limits import Failures, Persistence, TokenBucket

# -- token bucket ---------------------------------------------------------------------------------


def test_a_burst_passes_and_then_so_many_a_second() -> None:
    bucket = TokenBucket(rate=2, burst=5, now=0)

    at_once = [bucket.take(0) for _ in range(7)]
    later = [bucket.take(now) for now in (0.4, 0.5, 0.6, 1.0, 1.5)]

    assert at_once == [True] * 5 + [False] * 2
    assert later == [False, True, False, True, True]


def test_no_rest_is_worth_more_than_a_burst() -> None:
    bucket = TokenBucket(rate=2, burst=5, now=0)

    assert [bucket.take(1e6) for _ in range(6)] == [True] * 5 + [False]


@given(st.lists(st.floats(0, 3), max_size=200))
def test_never_more_than_a_burst_and_the_rate_pass(pauses: list[float]) -> None:
    bucket, now, passed = TokenBucket(rate=2, burst=5, now=0), 0.0, 0
    for pause in pauses:
        now += pause
        passed += bucket.take(now)

    assert passed <= 5 + 2 * now + 1e-6


# -- persistence ----------------------------------------------------------------------------------


def test_who_goes_on_for_too_long_is_found_out() -> None:
    persistence = Persistence(10)

    refused = [persistence.refused(second) for second in range(12)]

    assert refused == [False] * 10 + [True] * 2


def test_a_pause_begins_it_anew() -> None:
    persistence = Persistence(10)
    for second in range(10):
        persistence.refused(second)

    assert not any(persistence.refused(10.1 + second) for second in range(10))


# -- failures -------------------------------------------------------------------------------------


def test_who_failed_too_often_is_over_the_limit_until_it_has_calmed() -> None:
    failures = Failures(most=3, period=60)
    for now in (0, 10, 20):
        assert not failures.over("a", now)
        failures.count("a", now)

    assert [failures.over("a", now) for now in (20, 59.9, 60)] == [True, True, False]
    assert not failures.over("b", 20)


def test_who_goes_on_failing_stays_over_the_limit() -> None:
    failures = Failures(most=3, period=60)
    for now in range(0, 600, 10):
        failures.count("a", now)

    assert failures.over("a", 600)


def test_failures_far_apart_are_no_offence() -> None:
    failures = Failures(most=3, period=60)
    for now in range(0, 6000, 31):
        failures.count("a", now)
        assert not failures.over("a", now)


def test_who_failed_longest_ago_is_forgotten_first() -> None:
    failures = Failures(most=1, period=60, keys=3)
    for key in ("a", "b", "c", "a", "d"):
        failures.count(key, 0)

    assert [failures.over(key, 0) for key in "abcd"] == [True, False, True, True]


def test_ten_thousand_addresses_are_remembered_and_no_more() -> None:
    failures = Failures(most=20, period=60)
    for number in range(12_000):
        failures.count(number, 0)

    assert len(failures) == 10_000
