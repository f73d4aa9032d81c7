import pytest

from commserver.core.jobs import (
    Job,
    Offer,
    Priority,
    Requirement,
    Requires,
    SortKey,
    Value,
    normalised,
)
from tests.fakes import make_job, make_offer

# -- normalised -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(
            [Requirement("image", "=", ("python",)), Requirement("memory", "<=", (64,))],
            [Requirement("memory", "<=", (64,)), Requirement("image", "=", ("python",))],
            id="order of requirements",
        ),
        pytest.param(
            [Requirement("image", "in", ("java", "python"))],
            [Requirement("image", "in", ("python", "java"))],
            id="order of values",
        ),
        pytest.param(
            [Requirement("image", "in", ("python", "python"))],
            [Requirement("image", "in", ("python",))],
            id="a value twice",
        ),
        pytest.param(
            [Requirement("image", "=", ("python",)), Requirement("image", "=", ("python",))],
            [Requirement("image", "=", ("python",))],
            id="a requirement twice",
        ),
        pytest.param(
            [Requirement("level", "in", (1, "1"))],
            [Requirement("level", "in", ("1", 1))],
            id="a number and its spelling",
        ),
        pytest.param(
            [Requirement("level", "=", ("low",)), Requirement("level", "=", (1,))],
            [Requirement("level", "=", (1,)), Requirement("level", "=", ("low",))],
            id="numbers and words under one name",
        ),
    ],
)
def test_equal_requirements_share_a_lane(one: list[Requirement], other: list[Requirement]) -> None:
    assert normalised(one) == normalised(other)
    assert hash(normalised(one)) == hash(normalised(other))


def test_different_requirements_do_not_share_a_lane() -> None:
    lanes = {
        normalised(requires)
        for requires in (
            [],
            [Requirement("image", "=", ("python",))],
            [Requirement("image", "=", ("java",))],
            [Requirement("image", "in", ("java", "python"))],
            [Requirement("memory", "<=", (64,))],
            [Requirement("memory", "<=", (128,))],
            [Requirement("memory", "<=", ("64",))],
        )
    }

    assert len(lanes) == 7


def test_normalised_again_is_the_same() -> None:
    requires = normalised(
        [Requirement("b", "in", (3, "x", 10)), Requirement("a", "<=", (2,))],
    )

    assert normalised(requires) == requires


# -- fits -----------------------------------------------------------------------------------------


def offers(**features: set[Value]) -> Offer:
    return Offer("slot", "engine", {name: frozenset(values) for name, values in features.items()})


def needs(name: str, op: str, *values: Value) -> Requires:
    return normalised([Requirement(name, op, values)])  # type: ignore[arg-type]  # parametrised


@pytest.mark.parametrize(
    ("requires", "fits"),
    [
        (needs("image", "=", "python"), True),
        (needs("image", "=", "java"), False),
        (needs("image", "in", "java", "python"), True),
        (needs("image", "in", "java", "c"), False),
        (needs("memory", "<=", 64), True),
        (needs("memory", "<=", 256), True),
        (needs("memory", "<=", 257), False),
        (needs("memory", "<=", 1, 257), False),
        (needs("memory", "<=", "64"), False),
        (needs("image", "<=", 1), False),
        (needs("gpu", "=", "any"), False),
        (needs("gpu", "<=", 0), False),
        (needs("gpu", "in", "any"), False),
    ],
)
def test_an_offer_fits_what_it_has(requires: Requires, fits: bool) -> None:
    offer = offers(image={"python", "c++"}, memory={128, 256})

    assert offer.fits(requires) is fits


def test_an_offer_fits_only_if_every_requirement_is_met() -> None:
    offer = offers(image={"python"}, memory={128})
    python, small, big = (
        needs("image", "=", "python"),
        needs("memory", "<=", 64),
        needs("memory", "<=", 512),
    )

    assert offer.fits(())
    assert offer.fits(python + small)
    assert not offer.fits(python + big)


def test_a_job_and_an_offer_can_be_members_of_sets() -> None:
    assert len({make_job("a"), make_job("a"), make_job("b")}) == 2
    assert len({make_offer("a"), make_offer("a"), make_offer("b")}) == 2


# -- order ----------------------------------------------------------------------------------------


def test_class_comes_before_tag_and_tag_before_entry() -> None:
    keys = [
        SortKey(Priority.EXAM, 9.0, 9),
        SortKey(Priority.INTERACTIVE, 1.0, 8),
        SortKey(Priority.INTERACTIVE, 2.0, 1),
        SortKey(Priority.INTERACTIVE, 2.0, 2),
        SortKey(Priority.REGRADE, 0.0, 0),
    ]

    backwards = keys[::-1]
    assert sorted(backwards) == keys


def test_a_job_by_itself_has_three_tries_and_no_deadline() -> None:
    job = make_job("a")
    by_itself = Job(job.id, job.origin, job.owner, job.course, job.content, job.requires)

    assert (by_itself.max_tries, by_itself.lease, by_itself.attempt) == (3, None, None)
    assert by_itself.priority is Priority.INTERACTIVE
