"""The command line.

Exit codes: 0 it worked · 1 it did not, and said why · 2 wrong configuration or usage · 3 another
server is already the manager of this database.
"""

import asyncio
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from commserver import app, config, demo, logs
from commserver.core.jobs import AttemptId
from commserver.dao import migrations
from commserver.dao.codes import SourceFile
from commserver.engine import images as engine_images
from commserver.engine.wrapper import DockerWrapper
from commserver.errors import AlreadyManaged, CommServerError, ConfigError, DefinitionError
from commserver.reference import backend as reference_backend
from commserver.services.admin_service import AdminService

FAILED, MISUSED, MANAGED = 1, 2, 3
PUSH_TIMEOUT = 5.0  # seconds for the reference backend to take a submission

cli = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
images = typer.Typer(no_args_is_help=True, help="The images that submissions run in.")
token = typer.Typer(no_args_is_help=True, help="What browsers show to say whose they are.")
exercise = typer.Typer(no_args_is_help=True, help="Exercises, as teachers write them.")
cli.add_typer(images, name="images")
cli.add_typer(token, name="token")
cli.add_typer(exercise, name="exercise")

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file; else COMMSERVER_CONFIG, else ./commserver.toml."),
]
StateDir = Annotated[
    Path | None, typer.Option("--state-dir", help="Where everything is kept; else ./var.")
]

out = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True)


def main() -> None:
    """Run a command; what goes wrong is said in one line each, without a traceback."""
    os.umask(0o077)  # whatever we write is nobody else's business
    try:
        cli()
    except* AlreadyManaged as group:
        _say(group)
        sys.exit(MANAGED)
    except* ConfigError as group:
        _say(group)
        sys.exit(MISUSED)
    except* (CommServerError, OSError) as group:
        _say(group)
        sys.exit(FAILED)
    except* (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(FAILED)


def _say(group: BaseExceptionGroup[BaseException]) -> None:
    for error in _leaves(group):
        problems = error.problems if isinstance(error, ConfigError | DefinitionError) else [error]
        for problem in problems:
            err.print(Text.assemble(("commserver:", "red"), f" {problem}"), soft_wrap=True)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _loaded(file: Path | None, state_dir: Path | None) -> config.Config:
    loaded = config.load(file, state_dir=state_dir)
    logs.configure(loaded.log.level, loaded.log.format)
    return loaded


@cli.command()
def serve(file: ConfigFile = None, state_dir: StateDir = None) -> None:
    """Run the server until SIGTERM."""
    asyncio.run(app.serve(_loaded(file, state_dir)))


@cli.command(name="demo")
def demo_command(
    keep: Annotated[bool, typer.Option("--keep", help="Stay open afterwards.")] = False,
    state_dir: StateDir = None,
) -> None:
    """Judge a small course for real and check every result."""
    logs.configure()
    good = asyncio.run(demo.run(state_dir or Path("var"), keep=keep, console=out))
    raise typer.Exit(0 if good else FAILED)


@cli.command()
def migrate(
    with_platform: Annotated[
        bool,
        typer.Option("--with-platform", help="Also make the platform's tables, for a new site."),
    ] = False,
    file: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """Bring the database to what this version needs; the platform's own tables are left alone."""
    loaded = _loaded(file, state_dir)

    async def work() -> None:
        async with app.opened(loaded) as database:
            await migrations.upgrade(database, with_platform=with_platform)

    asyncio.run(work())
    typer.echo(f"migrated: {config.shown(loaded)['database']['url']}")


@cli.command()
def check_config(file: ConfigFile = None, state_dir: StateDir = None) -> None:
    """Print the configuration as it will be used, secrets masked; all problems at once."""
    loaded = _loaded(file, state_dir)
    app.check(loaded)
    out.print_json(data=config.shown(loaded))


@images.command()
def build(
    names: Annotated[list[str] | None, typer.Argument(help="Which; all without.")] = None,
    file: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """Build what is missing or has changed, on every engine."""
    loaded = _loaded(file, state_dir)

    async def work() -> None:
        for url in app.engines(loaded):
            wrapper = DockerWrapper(url, deadline=loaded.docker.deadline)
            try:
                await engine_images.build_all(
                    wrapper,
                    names or None,
                    images_dir=migrations.ROOT / "images",
                    say=typer.echo,
                )
            finally:
                wrapper.close()

    asyncio.run(work())


Work = Callable[[AdminService], Coroutine[Any, Any, None]]


def _admin(file: Path | None, state_dir: Path | None, work: Work) -> None:
    loaded = _loaded(file, state_dir)

    async def run() -> None:
        async with app.admin(loaded) as service:
            await work(service)

    asyncio.run(run())


@token.command()
def create(
    username: str,
    days: Annotated[int, typer.Option(min=1, help="How long it lives after each use.")] = 1,
    label: str = "",
    file: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """Print a new token for an account, which is added if there is none; it is shown only now."""

    async def work(service: AdminService) -> None:
        account = await service.account(username)
        typer.echo(await service.new_token(account, days=days, label=label))

    _admin(file, state_dir, work)


@token.command(name="list")
def list_tokens(file: ConfigFile = None, state_dir: StateDir = None) -> None:
    """List the tokens by their fingerprints."""

    async def work(service: AdminService) -> None:
        whole = Column("fingerprint", min_width=64, no_wrap=True)  # it is what `revoke` is given
        table = Table(whole, "account", "label", "expires", "valid")
        now = datetime.now(UTC)
        for entry in await service.tokens():
            label = escape(entry.label)
            row = (entry.sha256, str(entry.account_id), label, f"{entry.expires_at:%F %T}")
            table.add_row(*row, "yes" if entry.valid(now) else "no")
        out.print(table)

    _admin(file, state_dir, work)


@token.command()
def revoke(fingerprint: str, file: ConfigFile = None, state_dir: StateDir = None) -> None:
    """Let a token open nothing any more."""
    _admin(file, state_dir, lambda service: service.revoke(fingerprint))


@exercise.command(name="import")
def import_exercise(
    folders: list[Path],
    teacher: str = "teacher",
    file: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """Put exercises into the platform's tables; prints their ids."""

    async def work(service: AdminService) -> None:
        for folder in folders:
            number = await service.import_exercise(folder, teacher)
            typer.echo(f"{number}\t{folder}")

    _admin(file, state_dir, work)


@cli.command()
def submit(
    exercise_id: int,
    files: list[Path],
    username: str = "student",
    push: Annotated[
        str, typer.Option(help="The reference backend's HTTP address; '' = only write.")
    ] = "http://127.0.0.1:9501",
    file: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """Write an attempt as the platform would, and let the reference backend push it."""

    if push and not push.startswith("http://"):
        raise ConfigError([f"--push: {push!r} is not an http:// address"])

    async def work(service: AdminService) -> None:
        sources = [SourceFile(path.name, _text(path)) for path in files]
        account = await service.account(username)
        attempt = await service.add_attempt(account, exercise_id, sources)
        typer.echo(f"attempt {attempt}")
        if push:
            await asyncio.to_thread(pushed, push, attempt)

    _admin(file, state_dir, work)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not a text in UTF-8"]) from error


def pushed(address: str, attempt: AttemptId) -> None:
    """Tell the reference backend of an attempt.

    Raises:
        OSError: it did not take it.
    """
    body = json.dumps({"id": str(attempt)}).encode()
    request = urllib.request.Request(f"{address}/submit", body, method="POST")  # noqa: S310  # only http
    try:
        with urllib.request.urlopen(request, timeout=PUSH_TIMEOUT):  # noqa: S310  # likewise
            return
    except urllib.error.URLError as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is the answer as well, with its socket
        raise OSError(f"the reference backend at {address} did not take it: {error}") from error


@cli.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    help="The reference backend: a true peer for tests and integrators.",
)
def backend(arguments: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Run the reference backend, which has a command line of its own."""
    reference_backend.main(arguments or [])


if __name__ == "__main__":
    main()
