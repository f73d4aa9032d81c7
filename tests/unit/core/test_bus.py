import pytest
from structlog.testing import capture_logs

from commserver.core.bus import EventBus
from commserver.core.events import Event, QueueMoved, RunQueued, RunReplaced
from tests.fakes import PYTHON, make_job

MOVED = QueueMoved(PYTHON, 1)
QUEUED = RunQueued(make_job("a"))


@pytest.fixture
def bus() -> EventBus:
    return EventBus()


def test_a_handler_hears_the_kinds_it_asked_for_in_order(bus: EventBus) -> None:
    heard: list[Event] = []
    bus.subscribe(heard.append, QueueMoved, RunQueued)

    bus.publish(MOVED)
    bus.publish(RunReplaced(make_job("a")))
    bus.publish(QUEUED)

    assert heard == [MOVED, QUEUED]


def test_an_event_that_nobody_asked_for_is_nobodys(bus: EventBus) -> None:
    bus.publish(MOVED)


def test_handlers_are_called_in_the_order_of_their_subscription(bus: EventBus) -> None:
    heard: list[str] = []
    for name in ("first", "second", "third"):
        bus.subscribe(lambda _, name=name: heard.append(name), QueueMoved)  # type: ignore[misc]

    bus.publish(MOVED)

    assert heard == ["first", "second", "third"]


def test_nothing_is_heard_after_the_subscription_ended(bus: EventBus) -> None:
    heard: list[Event] = []
    unsubscribe = bus.subscribe(heard.append, QueueMoved, RunQueued)

    unsubscribe()
    unsubscribe()
    bus.publish(MOVED)
    bus.publish(QUEUED)

    assert heard == []


def test_ending_one_subscription_leaves_another_of_the_same_handler(bus: EventBus) -> None:
    heard: list[Event] = []
    handler = heard.append
    bus.subscribe(handler, QueueMoved)
    unsubscribe = bus.subscribe(handler, QueueMoved)

    unsubscribe()
    bus.publish(MOVED)

    assert heard == [MOVED]


def test_a_handler_that_raises_disturbs_nobody_and_is_logged(bus: EventBus) -> None:
    def raises(_: Event) -> None:
        raise ValueError("a bug")

    heard: list[Event] = []
    bus.subscribe(raises, QueueMoved)
    bus.subscribe(heard.append, QueueMoved)

    with capture_logs() as logs:
        bus.publish(MOVED)

    assert heard == [MOVED]
    assert [(line["event"], line["kind"]) for line in logs] == [
        ("event_handler_failed", "QueueMoved")
    ]


def test_a_handler_may_subscribe_and_unsubscribe_while_an_event_is_told(bus: EventBus) -> None:
    heard: list[str] = []

    def once(_: Event) -> None:
        heard.append("once")
        unsubscribe()
        bus.subscribe(lambda _: heard.append("later"), QueueMoved)

    unsubscribe = bus.subscribe(once, QueueMoved)
    bus.subscribe(lambda _: heard.append("always"), QueueMoved)

    bus.publish(MOVED)
    assert heard == ["once", "always"]

    bus.publish(MOVED)
    assert heard == ["once", "always", "always", "later"]
