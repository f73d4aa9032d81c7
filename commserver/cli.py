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
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from commserver import config, descriptors, logs, operations
from commserver.commands import audit as audit_command
from commserver.commands import conformance, exercise, script
from commserver.commands import explain as explain_command
from commserver.commands import status as status_command
from commserver.commands import watch as watch_command
from commserver.commands.options import (
    FAILED,
    MANAGED,
    MISUSED,
    AsJson,
    ConfigFile,
    StateDir,
    configured,
    err,
    out,
)
from commserver.core.jobs import AttemptId
from commserver.dao import migrations
from commserver.dao.codes import SourceFile
from commserver.errors import AlreadyManaged, CommServerError, ConfigError, DefinitionError
from commserver.reference import backend as reference_backend
from commserver.services import archive_service
from commserver.services.admin_service import AdminService
from commserver.services.archive_service import Summary
from commserver.services.erase_service import Erased

BACKEND_SCRIPT = """\
--script right,wrong,error   stands in for a platform: writes an attempt for each word into the
                             configured database (--config, --state-dir), pushes them, checks how
                             they end, and exits 0, or 1 and says what differed
"""
PUSH_TIMEOUT = 5.0  # seconds for the reference backend to take a submission

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # tokens are among them
    help=__doc__,
)
images = typer.Typer(no_args_is_help=True, help="The images that submissions run in.")
token = typer.Typer(no_args_is_help=True, help="What browsers show to say whose they are.")
cli.add_typer(images, name="images")
cli.add_typer(token, name="token")
cli.add_typer(exercise.app, name="exercise")
cli.add_typer(conformance.app, name="conformance")


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
        _print_problems(problems)


def _print_problems(problems: Iterable[object]) -> None:
    for problem in problems:
        err.print(Text.assemble(("commserver:", "red"), f" {problem}"), soft_wrap=True)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


@cli.command()
def serve(file: ConfigFile = None, state_dir: StateDir = None) -> None:
    """Run the server until SIGTERM."""
    # The server and what drives Docker take long to load: here and below only where needed.
    from commserver import app

    asyncio.run(app.serve(configured(file, state_dir)))


@cli.command(name="demo")
def demo_command(
    keep: Annotated[bool, typer.Option("--keep", help="Stay open afterwards.")] = False,
    state_dir: StateDir = None,
) -> None:
    """Judge a small course for real and check every result."""
    from commserver import demo

    logs.configure()
    good = asyncio.run(demo.run(state_dir or Path("var"), keep=keep, console=out))
    raise typer.Exit(0 if good else FAILED)


@cli.command()
def migrate(
    with_platform: Annotated[
        bool,
        typer.Option("--with-platform", help="Also make the platform's tables, for a new site."),
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Change nothing; say what would be done and locked.")
    ] = False,
    grants: Annotated[
        str | None,
        typer.Option(metavar="ROLE", help="Change nothing; print the rights that ROLE needs."),
    ] = None,
    file: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """Bring the database to what this version needs; the platform's own tables are left alone."""
    loaded = configured(file, state_dir)
    if plan and grants is not None:
        raise ConfigError(["--plan and --grants: one at a time"])
    if grants == "":
        raise ConfigError(["--grants: which role?"])
    if plan:
        for line in asyncio.run(operations.plan(loaded, with_platform=with_platform)):
            typer.echo(line)
        return
    if grants is not None:
        for line in asyncio.run(operations.grants(loaded, grants)):
            typer.echo(line)
        return

    changed = asyncio.run(operations.migrate(loaded, with_platform=with_platform))
    done = "migrated" if changed else "nothing to do, it was migrated before"
    typer.echo(f"{done}: {config.shown(loaded)['database']['url']}")


@cli.command()
def check_config(file: ConfigFile = None, state_dir: StateDir = None) -> None:
    """Print the configuration as it will be used, secrets masked; all problems at once.

    The database is looked at too: what keeps a server from working on it is listed.
    """
    from commserver import app

    loaded = configured(file, state_dir)
    app.check(loaded)
    out.print_json(data=config.shown(loaded))
    for warning in config.warnings(loaded):
        err.print(Text(f"warning: {warning}"), soft_wrap=True)
    problems = asyncio.run(operations.problems(loaded))
    if problems is None:
        err.print(
            "the database is not there yet, and a server refuses to start without it: run "
            "`commserver migrate`, or `commserver migrate --with-platform` for a new site",
            soft_wrap=True,
        )
    elif problems:
        _print_problems(problems)
        raise typer.Exit(FAILED)
    if said := descriptors.problem(loaded, descriptors.hard_limit()):
        err.print(said, soft_wrap=True, markup=False)


@images.command()
def build(
    names: Annotated[list[str] | None, typer.Argument(help="Which; all without.")] = None,
    file: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """Build what is missing or has changed, on every engine."""
    from commserver import app
    from commserver.engine import images as engine_images
    from commserver.engine.wrapper import DockerWrapper

    loaded = configured(file, state_dir)

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
    loaded = configured(file, state_dir)

    async def run() -> None:
        async with operations.admin(loaded) as service:
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
    """Print a new token for an account; it is shown only now.

    An account that is not there is added, but never beside a live platform.
    """

    async def work(service: AdminService) -> None:
        account = await service.account(username)
        typer.echo(await service.new_token(account, days=days, label=label))
        typer.echo(f"account {account}", err=True)  # standard output is the token alone

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
        if expected := await service.expected_files(exercise_id):
            sources = _named(sources, expected, exercise_id)
        attempt = await service.add_attempt(account, exercise_id, sources)
        typer.echo(f"attempt {attempt}")
        if push:
            await asyncio.to_thread(pushed, push, attempt)

    _admin(file, state_dir, work)


Archive = Annotated[Path, typer.Argument(metavar="FILE", help="The archive.")]


@cli.command()
def backup(
    path: Archive,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    file: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """Write the whole site of this moment into one file, also while the server runs.

    Our tables and the stored contents. The platform's tables are in it only where commserver made
    them: a live platform has a backup of its own.
    """
    loaded = configured(file, state_dir)

    async def work() -> Summary:
        async with operations.archives(loaded) as service:
            return await service.backup(path, force=force)

    _say_archived("in", path, asyncio.run(work()))
    asyncio.run(_noted(loaded, "backup", f"file {path.absolute()}"))


@cli.command()
def restore(path: Archive, file: ConfigFile = None, state_dir: StateDir = None) -> None:
    """Put a backup into a new database, of either kind, which is migrated first if need be."""
    loaded = configured(file, state_dir)

    async def work() -> Summary:
        with archive_service.opened(path) as archive:
            async with operations.archives(loaded, new=True) as service:
                return await service.restore(archive)

    restored = asyncio.run(work())
    _say_archived("restored from", path, restored)
    asyncio.run(_noted(loaded, "restore", f"file {path.absolute()}"))
    if restored.site:
        typer.echo(
            "the site gets a new id: what an engine still has of the former one, "
            f"{restored.site}, is left alone"
        )


async def _noted(loaded: config.Config, action: str, target: str) -> None:
    """Write into the audit what is done already: that it cannot be written undoes nothing."""
    try:
        async with operations.auditing(loaded) as audit:
            await audit.record(operations.operator(), action, target)
    except CommServerError as error:
        _print_problems([f"done, but the audit did not take it: {error}"])


def _say_archived(where: str, path: Path, what: Summary) -> None:
    typer.echo(f"{what.runs} runs and {what.contents} contents {where} {path}")
    if what.missing:
        typer.echo(f"{what.missing} contents of runs that have not ended were lost before")
    if what.platform:
        typer.echo("the platform's tables are in it, since commserver made them")
    else:
        typer.echo("the platform's tables are not in it: they are the platform's to back up")


@cli.command()
def erase(
    account: Annotated[int, typer.Argument(min=0, max=2**63 - 1, help="Its `accounts.id`.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    file: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """Forget an account: whatever commserver holds about it, also while the server runs.

    Its runs stay as blanks, so that none is taken for new work. The platform's own tables, with the
    student's files, grades and logs, are not touched.
    """
    loaded = configured(file, state_dir)

    async def called() -> str:
        async with operations.eraser(loaded) as service:
            name = await service.username(account)
        return f"account {account}" + (f" ({name})" if name is not None else "")

    if not yes:
        who = asyncio.run(called())
        typer.confirm(f"Erase what commserver holds about {who}, for good?", abort=True)

    async def work() -> Erased:
        async with operations.eraser(loaded) as service:
            return await service.erase(account)

    gone = asyncio.run(work())
    if not any(astuple(gone)):
        typer.echo(f"nothing was held about account {account}")
        return
    typer.echo(f"{gone.runs} runs made blank, {gone.ended} of them cancelled")
    typer.echo(f"{gone.tokens} tokens, {gone.finals} finals and {gone.contents} contents removed")
    if gone.left:
        typer.echo(
            f"{gone.left} contents were handed in a moment ago, perhaps by others as well, or "
            "could not be removed: a running server does it within about a day"
        )
    typer.echo("the platform's own tables are not touched")


@cli.command()
def status(
    url: Annotated[str, typer.Option(help="The server's HTTP side; else as configured.")] = "",
    ca: Annotated[
        Path | None, typer.Option(help="Whom to trust, PEM; else whom this machine trusts.")
    ] = None,
    as_json: AsJson = False,
    file: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """Show how the running server is; exits 0 when all is well, 1 when somebody has to look.

    The admins' token is in COMMSERVER_TOKEN, else in the state directory.
    """
    loaded = configured(file, state_dir)
    well = asyncio.run(status_command.run(loaded, out, url=url, ca=ca, as_json=as_json))
    raise typer.Exit(0 if well else FAILED)


@cli.command()
def explain(
    attempt: Annotated[int, typer.Argument(min=0, max=2**63 - 1, help="Its `user_exercises.id`.")],
    texts: Annotated[
        bool,
        typer.Option("--texts", help="With what its student read, and notes for its teacher only."),
    ] = False,
    as_json: AsJson = False,
    file: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """Tell what became of an attempt, from the database alone, also days later."""
    loaded = configured(file, state_dir)
    asyncio.run(explain_command.run(loaded, attempt, out, texts=texts, as_json=as_json))


@cli.command()
def watch(
    url: Annotated[str, typer.Option(help="The WebSocket's address; else as configured.")] = "",
    token_file: Annotated[
        Path | None, typer.Option(help="Your token; else you are asked, or standard input is read.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="Whom to trust, PEM; else whom this machine trusts.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when nothing waits any more.")] = False,
    file: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """Show your own places and results, live, until Ctrl-C."""
    loaded = configured(file, state_dir)
    work = watch_command.run(loaded, out, url=url, token_file=token_file, ca=ca, once=once)
    try:
        asyncio.run(work)
    except KeyboardInterrupt as interrupt:
        raise typer.Exit(0) from interrupt


@cli.command()
def audit(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 50,
    as_json: AsJson = False,
    file: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """List what admins did, the newest first."""
    loaded = configured(file, state_dir)
    asyncio.run(audit_command.run(loaded, limit, out, as_json=as_json))


def _named(
    sources: Sequence[SourceFile], expected: Sequence[str], exercise_id: int
) -> list[SourceFile]:
    """Return the files by the names that the exercise expects; a single one gets the single name.

    Raises:
        ConfigError: they are not those.
    """
    given = [source.name for source in sources]
    if sorted(given) == sorted(expected):
        return list(sources)
    if len(given) == len(expected) == 1:
        typer.echo(f"{given[0]} is handed in as {expected[0]}, as exercise {exercise_id} expects")
        return [SourceFile(expected[0], sources[0].content)]
    wanted, what = ", ".join(expected), ", ".join(given)
    raise ConfigError([f"exercise {exercise_id} expects {wanted}; these are {what}"])


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
def backend(
    arguments: Annotated[list[str] | None, typer.Argument()] = None,
    script_words: Annotated[str, typer.Option("--script")] = "",
    file: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """Run the reference backend, which has a command line of its own.

    Only `--script` knows of a configuration: where the attempts are written, where to listen.
    """
    given = arguments or []
    if "--help" in given:
        typer.echo(BACKEND_SCRIPT)
    if script_words:
        words = script.parsed(script_words)
        given = [*asyncio.run(script.written(configured(file, state_dir), words)), *given]
    raise typer.Exit(reference_backend.main(given))


if __name__ == "__main__":
    main()
