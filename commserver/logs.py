"""How log lines look: for people on a terminal, JSON for everything else, always on stderr."""

import logging
import sys
import time
from typing import Literal

import structlog

REPEATS = 10  # of one message of a library that are told within `PERIOD`
PERIOD = 60.0  # seconds


def configure(level: str = "INFO", form: Literal["auto", "text", "json"] = "auto") -> None:
    """Set up structlog once, before anything logs."""
    as_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    chain: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    ends: list[structlog.typing.Processor]
    if as_text:
        # Plain: the prettier tracebacks print local variables, tokens among them.
        plain = structlog.dev.plain_traceback
        colours = sys.stderr.isatty()
        ends = [structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain)]
    else:
        ends = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*chain, *ends],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    _adopt_libraries(chain, ends)


class _Libraries(logging.StreamHandler):  # type: ignore[type-arg]  # it is generic for types alone
    """Writes what libraries log by the standard's means."""


class _Repeats(logging.Filter):
    """Lets no library say one thing more than `REPEATS` times in `PERIOD` seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, int] = {}
        self._since = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._since >= PERIOD:
            self._told, self._since = {}, now
        key = f"{record.name} {record.msg}"
        self._told[key] = self._told.get(key, 0) + 1
        return self._told[key] <= REPEATS


def _adopt_libraries(
    chain: list[structlog.typing.Processor], ends: list[structlog.typing.Processor]
) -> None:
    """Have warnings of libraries look like our own lines, instead of as each of them likes."""
    handler = _Libraries(sys.stderr)
    handler.addFilter(_Repeats())
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*chain, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ends],
    )
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for former in [one for one in root.handlers if isinstance(one, _Libraries)]:
        root.removeHandler(former)
    root.addHandler(handler)
