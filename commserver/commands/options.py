"""What most commands share: where the configuration is, and where they print."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from commserver import config, logs

FAILED, MISUSED, MANAGED = 1, 2, 3

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file; else COMMSERVER_CONFIG, else ./commserver.toml."),
]
StateDir = Annotated[
    Path | None, typer.Option("--state-dir", help="Where everything is kept; else ./var.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]

out = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True)


def configured(file: Path | None, state_dir: Path | None) -> config.Config:
    """Return the configuration that a command is to work with; logs go where it says.

    Raises:
        ConfigError: it cannot be used.
    """
    found = config.load(file, state_dir=state_dir)
    logs.configure(found.log.level, found.log.format)
    return found
