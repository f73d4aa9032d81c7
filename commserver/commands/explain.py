"""`commserver explain`: what became of an attempt, told from the database."""

from datetime import datetime

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commserver.config import Config
from commserver.core.jobs import AttemptId
from commserver.dao.dao_manager import DaoManager
from commserver.operations import ready
from commserver.services.explain_service import ExplainService, RunStory, Story
from commserver.services.file_store import FileStore


async def run(
    config: Config, attempt: int, out: Console, *, texts: bool = False, as_json: bool
) -> None:
    """Print what became of an attempt; with `texts` what its student and its teacher may read.

    Raises:
        NotFound: there is none.
        ConfigError, StoreError: the database cannot be read.
    """
    async with ready(config) as database:
        service = ExplainService(database, DaoManager(), FileStore(config.files_dir))
        story = await service.explain(AttemptId(attempt), texts=texts)
    if as_json:
        out.print_json(msgspec.json.encode(story).decode())
    else:
        show(story, out)


def show(story: Story, out: Console) -> None:
    """Print a story in sentences, each with its time and the seconds since the one before."""
    whose = "nobody's" if story.account is None else f"account {story.account}"
    name = f" ({story.username})" if story.username is not None else ""
    exercise = "no exercise" if story.exercise is None else f"exercise {story.exercise}"
    out.print(Text(f"attempt {story.attempt}, {whose}{name}, {exercise}"))
    for sentence in story.about:
        out.print(Text(sentence))
    for one in story.runs:
        _show_run(one, out)


def _show_run(story: RunStory, out: Console) -> None:
    erased = ", erased" if story.erased else ""
    out.print()
    out.print(Text(f"run {story.run}, {story.purpose}: {story.state}{erased}", "bold"))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for step in story.steps:
        since = "" if step.after is None else _seconds(step.after)
        table.add_row(_moment(step.at), since, step.name, Text(step.says))
    out.print(table, soft_wrap=False)


def _moment(at: datetime | None) -> str:
    return f"{at:%F %T}.{at.microsecond // 1000:03d} UTC" if at else ""


def _seconds(after: float) -> str:
    return f"{after:+.1f} s" if abs(after) >= 0.1 else f"{after * 1000:+.0f} ms"
