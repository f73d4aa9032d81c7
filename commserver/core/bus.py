"""Who wants to know what happened."""

from collections.abc import Callable

import structlog

from commserver.core.events import Event

log = structlog.get_logger(__name__)

Handler = Callable[[Event], None]


class EventBus:
    """Hands every event to those who asked for its kind, in order, at once.

    A handler is a plain function that must not block: whatever it cannot do at once it keeps in a
    bounded place of its own. One that raises is logged and disturbs neither publisher nor others.
    """

    def __init__(self) -> None:
        self._subscriptions: dict[type, list[tuple[Handler]]] = {}

    def subscribe(self, handler: Handler, *kinds: type) -> Callable[[], None]:
        """Call `handler` with each later event of these kinds; the result ends that."""
        own = (handler,)  # of its own identity: the same handler may be subscribed twice
        for kind in kinds:
            # Lists are replaced, never changed: a handler may subscribe while one is walked.
            self._subscriptions[kind] = [*self._subscriptions.get(kind, []), own]

        def unsubscribe() -> None:
            for kind in kinds:
                self._subscriptions[kind] = [s for s in self._subscriptions[kind] if s is not own]

        return unsubscribe

    def publish(self, event: Event) -> None:
        """Tell everybody who asked for this kind."""
        for (handler,) in self._subscriptions.get(type(event), ()):
            try:
                handler(event)
            except Exception:
                log.exception("event_handler_failed", kind=type(event).__name__)
