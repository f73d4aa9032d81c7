"""How log lines look: for people on a terminal, JSON for everything else, always on stderr."""

import logging
import sys
from typing import Literal

import structlog


def configure(level: str = "INFO", form: Literal["auto", "text", "json"] = "auto") -> None:
    """Set up structlog once, before anything logs."""
    as_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    chain: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if as_text:
        # Plain: the prettier tracebacks print local variables, tokens among them.
        plain = structlog.dev.plain_traceback
        colours = sys.stderr.isatty()
        chain.append(structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain))
    else:
        chain += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=chain,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
