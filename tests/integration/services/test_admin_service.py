"""What the platform and its admins do, in the platform's own tables."""

from pathlib import Path

import pytest

from commserver.core.jobs import AttemptId
from commserver.dao.codes import SourceFile
from commserver.errors import DefinitionError, NotFound
from commserver.services.auth_service import fingerprint
from tests.fakes import FakeClock
from tests.integration.services.site import Site
from tests.unit.graders.toml import exercise


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A right exercise, as its teacher has it."""
    folder = tmp_path / "double"
    folder.mkdir()
    (folder / "exercise.toml").write_text(exercise("grade_max = 12"))
    (folder / "instruction.md").write_text("Doublez-le, s'il vous plaît.", encoding="utf-8")
    return folder


# -- accounts and tokens --------------------------------------------------------------------------


async def test_an_account_is_added_once(site: Site) -> None:
    ada, grace = await site.admin.account("ada"), await site.admin.account("grace")

    assert ada != grace
    assert await site.admin.account("ada") == ada


async def test_no_account_is_added_beside_a_live_platform(site: Site, folder: Path) -> None:
    ada = await site.admin.account("ada")
    await site.sql("DROP TABLE platform_version")

    assert await site.admin.account("ada") == ada
    for adding in (site.admin.account("nobody"), site.admin.import_exercise(folder, "nobody")):
        with pytest.raises(NotFound, match="there is no account nobody"):
            await adding
    assert await site.count("accounts") == 1
    assert await site.count("languages") == 0


async def test_tokens_are_long_random_and_never_the_same(site: Site) -> None:
    account = await site.admin.account("ada")

    tokens = {await site.admin.new_token(account) for _ in range(20)}

    assert len(tokens) == 20
    assert min(map(len, tokens)) >= 22, "130 random bits in base64"


async def test_tokens_are_listed_for_one_account_or_for_all(site: Site, clock: FakeClock) -> None:
    ada, grace = await site.admin.account("ada"), await site.admin.account("grace")
    first = await site.admin.new_token(ada, days=3, label="laptop")
    clock.advance(1.0)
    second = await site.admin.new_token(grace)

    assert [token.sha256 for token in await site.admin.tokens()] == [
        fingerprint(first),
        fingerprint(second),
    ]
    [token] = await site.admin.tokens(ada)
    assert (token.account_id, token.label, token.life) == (ada, "laptop", 3 * 86_400)


async def test_revoking_twice_or_the_unknown_is_not_found(site: Site) -> None:
    hashed = fingerprint(await site.admin.new_token(await site.admin.account("ada")))
    await site.admin.revoke(hashed)

    for unknown in (hashed, "0" * 64, ""):
        with pytest.raises(NotFound) as caught:
            await site.admin.revoke(unknown)
        assert (caught.value.kind, caught.value.id) == ("token", unknown)


# -- exercises ------------------------------------------------------------------------------------


async def test_an_exercise_is_put_into_the_platforms_tables(site: Site, folder: Path) -> None:
    number = await site.admin.import_exercise(folder, "turing")

    assert await site.sql(
        "SELECT e.id, e.title, e.instruction, e.grade_max, a.username, c.title, l.name, s.content"
        " FROM exercises e JOIN accounts a ON a.id = e.account_id"
        " JOIN courses c ON c.id = e.course_id JOIN languages l ON l.id = c.language_id"
        " JOIN scripts s ON s.exercise_id = e.id"
    ) == [
        (
            number,
            "Double it",
            "Doublez-le, s'il vous plaît.",
            12,
            "turing",
            "python-101",
            "python",
            exercise("grade_max = 12"),
        )
    ]


async def test_importing_it_again_changes_nothing(site: Site, folder: Path) -> None:
    number = await site.admin.import_exercise(folder, "turing")

    assert await site.admin.import_exercise(folder, "turing") == number
    assert [await site.count(table) for table in ("exercises", "courses", "scripts")] == [1, 1, 1]


async def test_the_newest_import_counts(site: Site, folder: Path) -> None:
    number = await site.admin.import_exercise(folder, "turing")
    rewrite(folder / "exercise.toml", exercise("grade_max = 50"))
    rewrite(folder / "instruction.md", "Twice.")

    assert await site.admin.import_exercise(folder, "turing") == number

    assert await site.sql("SELECT instruction, grade_max FROM exercises") == [("Twice.", 50)]
    newest = await site.database.read(lambda c: site.daos.scripts.newest(c, number))
    assert newest == exercise("grade_max = 50")


async def test_an_exercise_may_have_no_instruction(site: Site, folder: Path) -> None:
    rewrite(folder / "instruction.md", None)

    await site.admin.import_exercise(folder, "turing")

    assert await site.sql("SELECT instruction FROM exercises") == [("",)]


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("exercise.toml", None, "No such file"),
        ("exercise.toml", b"\xff", "is no text in UTF-8 (line 1)"),
        ("exercise.toml", b"import grader", "not TOML"),
        ("exercise.toml", exercise("nonsense = 1").encode(), "nonsense: no such key"),
        ("instruction.md", b"plus\ntard\xe9", "is no text in UTF-8 (line 2)"),
    ],
)
async def test_a_wrong_exercise_is_told_with_its_file_and_writes_nothing(
    site: Site, folder: Path, file: str, content: bytes | None, problem: str
) -> None:
    rewrite(folder / file, content)

    with pytest.raises(DefinitionError) as caught:
        await site.admin.import_exercise(folder, "turing")

    [said] = caught.value.problems
    assert said.startswith(f"{folder / file}: ")
    assert problem in said
    assert [await site.count(table) for table in ("accounts", "exercises", "scripts")] == [0, 0, 0]


def rewrite(file: Path, content: bytes | str | None) -> None:
    """Let a file say something else, or not be there."""
    if content is None:
        file.unlink()
    elif isinstance(content, str):
        file.write_text(content)
    else:
        file.write_bytes(content)


# -- attempts -------------------------------------------------------------------------------------


async def test_an_attempt_is_written_as_the_platform_does(site: Site, clock: FakeClock) -> None:
    number = await site.exercise()
    account = await site.admin.account("ada")

    attempt = await site.admin.add_attempt(
        account, number, [SourceFile("main.py", "print('é')\r\n"), SourceFile("b.py", "")]
    )

    assert await site.sql("SELECT id, account_id, exercise_id FROM user_exercises") == [
        (attempt, account, number)
    ]
    at = int(clock.utc().timestamp() * 1000)
    assert await site.sql(
        "SELECT name, content, create_timestamp, modify_timestamp FROM codes"
    ) == [
        ("main.py", "print('é')\r\n", at, at),
        ("b.py", "", at, at),
    ]


async def test_an_attempt_at_no_exercise_is_not_written(site: Site) -> None:
    account = await site.admin.account("ada")

    with pytest.raises(NotFound) as caught:
        await site.admin.add_attempt(account, 999, [])

    assert (caught.value.kind, caught.value.id) == ("exercise", "999")
    assert await site.count("user_exercises") == 0


async def test_a_result_is_what_the_students_page_would_read(site: Site) -> None:
    attempt = await site.attempt(await site.exercise())
    assert await site.admin.result(attempt) == (None, None)

    for value, log in ((3, "older"), (5, "newer")):
        await site.sql(
            "INSERT INTO grades (user_exercise_id, value, timestamp) VALUES (:a, :v, 0)",
            a=attempt,
            v=value,
        )
        await site.sql(
            "INSERT INTO logs (user_exercise_id, content, timestamp) VALUES (:a, :l, 0)",
            a=attempt,
            l=log,
        )

    assert await site.admin.result(attempt) == (5, "newer")
    assert await site.admin.result(AttemptId(attempt + 1)) == (None, None)
