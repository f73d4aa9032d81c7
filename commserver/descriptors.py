"""File descriptors: how many we may have, and how many connections fit into that."""

import resource

import structlog

from commserver.config import Config
from commserver.gateways.listening import ACCEPTS, SPARE

log = structlog.get_logger(__name__)

OURS = 128  # files, the database's connections, the backends', the webhook's, those of threads
PER_SLOT = 4  # connections to an engine
DOORS = 2 * (ACCEPTS + SPARE)  # for those who are turned away, at both ports
LEAST = 4  # at least so much of the limit, as a fraction 1/n, is for connections


def hard_limit() -> int | None:
    """Return how many descriptors this process may have at most, None for no limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def raise_limit() -> None:
    """Have as many descriptors as we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def fitted(config: Config, limit: int | None) -> Config:
    """Return the configuration with as many connections as `limit` descriptors allow.

    Both ports give up the same share of theirs.
    """
    wanted = _wanted(config)
    if limit is None or wanted + _reserved(config) <= limit:
        return config
    left = max(limit - _reserved(config), limit // LEAST)
    browsers = max(1, config.browser.connections * left // wanted)
    update: dict[str, object] = {
        "browser": config.browser.model_copy(update={"connections": browsers})
    }
    if config.http.enabled:
        http = max(1, config.http.connections * left // wanted)
        update["http"] = config.http.model_copy(update={"connections": http})
    return config.model_copy(update=update)


def problem(config: Config, limit: int | None) -> str:
    """Return what is to be set so that all connections of the configuration fit, "" if they do."""
    fits = fitted(config, limit)
    if fits is config:
        return ""
    needed = _wanted(config) + _reserved(config)
    fewer = f"browser.connections is {fits.browser.connections}"
    if config.http.enabled:
        fewer += f" and http.connections {fits.http.connections}"
    return (
        f"only {limit} file descriptors may be open, so {fewer}; for all that are configured set "
        f"LimitNOFILE={needed} (systemd) or `ulimit -Hn {needed}`"
    )


def prepared(config: Config) -> Config:
    """Have as many descriptors as we may, and return the configuration that they allow."""
    raise_limit()
    limit = hard_limit()
    if said := problem(config, limit):
        log.warning("few_descriptors", problem=said)
    return fitted(config, limit)


def _wanted(config: Config) -> int:
    return config.browser.connections + (config.http.connections if config.http.enabled else 0)


def _reserved(config: Config) -> int:
    engines = max(1, len(config.docker.hosts))
    return OURS + DOORS + PER_SLOT * config.docker.slots * engines
