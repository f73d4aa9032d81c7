"""Tables that have our names and are not ours, and schemas that a role does not see."""

import asyncio
import re
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from commserver.cluster import Cluster
from commserver.dao import grants, migrations, ours
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.plan import NAME
from tests.integration.dao.test_inspection import make
from tests.integration.test_cli_migrate import Run, run, state

__all__ = ["run"]  # a fixture

STRANGERS = ("tokens", "site")
COMMANDS = (["check-config"], ["migrate", "--plan"], ["migrate", "--grants", "judge"], ["migrate"])


@pytest.fixture
def crowded(empty_url: str, engine_name: str) -> str:
    """A platform's database with tables that are named like ours."""

    async def work() -> None:
        async with DatabaseManager(empty_url) as database:
            made = [f"CREATE TABLE {name} (id int)" for name in STRANGERS]
            await make(database, engine_name, *made)

    asyncio.run(work())
    return empty_url


def test_each_migration_makes_what_is_said_of_it() -> None:
    steps = migrations.plan(None, "sqlite", with_platform=False)

    made = {step.revision: tables_made(step.statements) for step in steps}

    first = next(iter(made))
    assert made[first][0] == ours.VERSION_TABLE
    assert {one: set(names) for one, names in made.items()} == {
        one: {*names, *([ours.VERSION_TABLE] if one == first else [])}
        for one, names in ours.MADE.items()
    }


def tables_made(statements: tuple[str, ...]) -> list[str]:
    found = (re.match(f"CREATE TABLE {NAME}", one) for one in statements)
    return [one[1] for one in found if one]


def test_a_table_with_a_name_of_ours_is_not_ours_and_every_command_says_so(
    run: Run, crowded: str, engine_name: str, request: pytest.FixtureRequest
) -> None:
    before = state(crowded, request)
    advice = (
        "rename them, or use PostgreSQL, where commserver can have a schema of its own"
        if engine_name == "sqlite"
        else "give it a schema of its own, `CREATE SCHEMA commserver AUTHORIZATION postgres; "
        "ALTER ROLE postgres SET search_path = commserver, public`"
    )
    where = "the database" if engine_name == "sqlite" else "the schema public"

    for command in (*COMMANDS, ["serve"]):
        ran = run(*command, url=crowded)

        assert ran.code == 1, command
        assert ran.err == [
            f"commserver: {where} has tokens, site, which commserver needs for itself and has not "
            f"made: {advice}"
        ]
        assert not any("GRANT" in line for line in ran.out)
    assert state(crowded, request) == before


def test_a_name_of_a_later_migration_may_be_taken_as_well(
    run: Run, empty_url: str, engine_name: str
) -> None:
    async def work() -> None:
        async with DatabaseManager(empty_url) as database:
            await make(database, engine_name)
            await migrations.upgrade(database)
            await migrations.downgrade(database, "0001")
            statement = sa.text("CREATE TABLE notices (id int)")
            await database.write(lambda c: c.execute(statement))

    asyncio.run(work())

    for command in COMMANDS:
        ran = run(*command, url=empty_url)

        assert ran.code == 1
        assert " has notices, which commserver needs" in ran.err[0]


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
class TestPostgresql:
    """What SQLite has not: schemas, roles, types, policies."""

    @pytest.fixture
    def judge(self, empty_url: str, cluster: Cluster) -> Iterator[str]:
        """The URL of the empty database, by a role of its own."""
        database = make_url(empty_url).database
        assert database
        cluster.sql("DROP ROLE IF EXISTS judge")  # roles are the whole server's: another test's
        cluster.sql("CREATE ROLE judge LOGIN")
        yield cluster.url(database, "judge")
        cluster.sql("DROP OWNED BY judge CASCADE; DROP ROLE judge", database)

    def test_with_a_schema_of_our_own_theirs_is_left_alone(
        self, run: Run, crowded: str, judge: str, cluster: Cluster
    ) -> None:
        database = make_url(crowded).database
        assert database
        advised = run("migrate", url=judge).err[0].split("`")[1]
        assert not any("public.tokens" in line for line in run("check-config", url=judge).err)
        cluster.sql(advised, database)

        assert not any("tokens" in line for line in run("check-config", url=judge).err)
        assert run("migrate", "--plan", url=judge).code == 0
        first = run("migrate", "--grants", "judge", url=judge)
        assert first.code == 0
        cluster.sql("\n".join(first.out), database)
        assert run("migrate", url=judge).code == 0
        assert run("check-config", url=judge).err == []

        then = run("migrate", "--grants", "judge", url=judge)
        assert [line for line in (*first.out, *then.out) if "public.tokens" in line] == []
        assert not any("ON TABLE commserver.tokens TO" in line for line in then.out), "its own"
        others = run("migrate", "--grants", "somebody", url=judge)
        assert any("ON TABLE commserver.tokens TO" in line for line in others.out)
        assert not any("public.tokens" in line for line in others.out)
        assert cluster.sql("SELECT count(*) FROM public.tokens, public.site", database) == "0"

        cluster.sql("ALTER ROLE judge SET search_path = public, commserver", database)
        hidden = run("check-config", url=judge)
        assert hidden.code == 1
        assert hidden.err == [
            "commserver: public.tokens, public.site are found before commserver's own tables in "
            "the schema commserver: run `ALTER ROLE judge SET search_path = commserver, public`"
        ]

    def test_a_type_has_a_name_too(self, run: Run, empty_url: str, cluster: Cluster) -> None:
        cluster.sql("CREATE TYPE series AS ENUM ('a')", make_url(empty_url).database or "")

        assert " has series, which " in run("migrate", "--plan", url=empty_url).err[0]

    def test_later_tables_do_not_go_to_another_schema(
        self, run: Run, empty_url: str, engine_name: str, judge: str, cluster: Cluster
    ) -> None:
        async def work() -> None:
            async with DatabaseManager(empty_url) as database:
                await migrations.upgrade(database)
                await migrations.downgrade(database, "0001")

        asyncio.run(work())
        database = make_url(empty_url).database
        assert database
        cluster.sql("GRANT SELECT ON commserver_version TO judge", database)
        cluster.sql("CREATE SCHEMA judge AUTHORIZATION judge", database)

        for command in COMMANDS:
            assert run(*command, url=judge).err[0] == (
                "commserver: commserver's tables are in the schema public and new ones would go to "
                "judge: run `ALTER ROLE judge SET search_path = public, judge`"
            )

        assert run("migrate", url=empty_url).code == 0  # then there is nothing more to make
        assert run("migrate", "--plan", url=judge).code == 0

    def test_a_schema_that_the_role_does_not_see_is_told_with_what_must_be_granted(
        self, run: Run, empty_url: str, engine_name: str, judge: str, cluster: Cluster
    ) -> None:
        asyncio.run(platform(empty_url, engine_name))
        database = make_url(empty_url).database
        assert database
        cluster.sql("REVOKE ALL ON SCHEMA public FROM PUBLIC", database)

        for command in COMMANDS:
            ran = run(*command, url=judge)

            assert ran.code == 1
            assert ran.err[0] == (
                "commserver: the role judge lacks USAGE ON SCHEMA public and sees nothing in it: "
                "the owner must run `GRANT USAGE ON SCHEMA public TO judge` first"
            )
        # Who sees it has all of it printed.
        printed = run("migrate", "--grants", "judge", url=empty_url)
        assert printed.out[:2] == [
            'GRANT USAGE ON SCHEMA public TO "judge";',
            'GRANT CREATE ON SCHEMA public TO "judge";',
        ]

        cluster.sql(printed.out[0], database)
        ran = run("migrate", url=judge)
        assert (ran.code, ran.err) == (
            1,
            [
                "commserver: the role judge lacks CREATE ON SCHEMA public: "
                "see `commserver migrate --grants judge`"
            ],
        )

        cluster.sql("CREATE SCHEMA ours; CREATE SCHEMA other", database)
        cluster.sql("ALTER ROLE judge SET search_path = ours, public, other", database)
        ran = run("migrate", "--grants", "judge", url=judge)
        assert "lacks USAGE ON SCHEMA ours and sees" in ran.err[0]

    def test_a_search_path_to_nowhere_is_told(
        self, run: Run, empty_url: str, judge: str, cluster: Cluster
    ) -> None:
        cluster.sql("ALTER ROLE judge SET search_path = nowhere")

        for command in COMMANDS:
            ran = run(*command, url=judge)

            assert ran.code == 1
            assert "no schema of the search_path of the role judge exists (nowhere)" in ran.err[0]

    def test_rights_are_told_all_at_once_after_another_role_has_migrated(
        self, run: Run, empty_url: str, engine_name: str, judge: str
    ) -> None:
        asyncio.run(platform(empty_url, engine_name))
        assert run("migrate", url=empty_url).code == 0

        checked = run("check-config", url=judge)
        planned = run("migrate", "--plan", url=judge)
        printed = run("migrate", "--grants", "judge", url=judge)

        for right in ("SELECT ON TABLE public.commserver_version", "DELETE ON TABLE public.leases"):
            line = f"the role judge lacks {right}: see `commserver migrate --grants judge`"
            assert f"commserver: {line}" in checked.err
            assert line in planned.err[0]
            assert f'GRANT {right} TO "judge";' in printed.out
        assert (checked.code, planned.code, printed.code) == (1, 1, 0)
        assert not any("permission denied" in line for line in checked.err)

    def test_a_role_that_only_migrates_and_one_that_only_serves(
        self, run: Run, empty_url: str, engine_name: str, judge: str, cluster: Cluster
    ) -> None:
        asyncio.run(platform(empty_url, engine_name))
        database = make_url(empty_url).database
        assert database
        cluster.sql("REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE ROLE keeper LOGIN", database)
        cluster.sql("GRANT USAGE, CREATE ON SCHEMA public TO keeper", database)
        keeper = cluster.url(database, "keeper")

        migrated = run("migrate", url=keeper)
        printed = run("migrate", "--grants", "judge", url=keeper)
        cluster.sql("\n".join(printed.out), database)
        checked = run("check-config", url=judge)
        cluster.sql("DROP OWNED BY keeper CASCADE; DROP ROLE keeper", database)

        assert (migrated.code, printed.code) == (0, 0)
        assert not any("CREATE" in line for line in printed.out)
        assert (checked.code, checked.err) == (0, [])

    def test_row_level_security_without_a_policy_for_us_is_told(
        self, run: Run, empty_url: str, engine_name: str, judge: str, cluster: Cluster
    ) -> None:
        asyncio.run(platform(empty_url, engine_name))
        assert run("migrate", url=empty_url).code == 0
        database = make_url(empty_url).database
        assert database
        cluster.sql("\n".join(run("migrate", "--grants", "judge", url=empty_url).out), database)
        assert run("check-config", url=judge).err == []

        cluster.sql("ALTER TABLE grades ENABLE ROW LEVEL SECURITY", database)
        lines = run("check-config", url=judge).err
        assert lines == [
            f"commserver: grades has row-level security and no policy of it for {what} is for the "
            "role judge: make one, or run `ALTER ROLE judge BYPASSRLS`"
            for what in ("SELECT", "INSERT")
        ]
        assert run("check-config", url=empty_url).err == []  # a superuser is exempt

        for policy, left in (
            ("FOR SELECT USING (user_exercise_id = 1)", ["SELECT", "INSERT"]),
            ("FOR INSERT WITH CHECK (true)", ["SELECT"]),
            ("USING (user_exercise_id = 1) WITH CHECK (true)", ["SELECT"]),
            ("FOR SELECT TO judge USING (user_exercise_id > 0)", ["INSERT"]),
            ("TO judge USING (user_exercise_id > 0)", []),
            ("USING (true)", []),
            ("AS RESTRICTIVE TO judge USING (true)", ["SELECT", "INSERT"]),
        ):
            cluster.sql(f"CREATE POLICY one ON grades {policy}", database)
            lines = run("check-config", url=judge).err
            assert [line.split(" for ")[1].split()[0] for line in lines] == left, policy
            cluster.sql("DROP POLICY one ON grades", database)


async def platform(url: str, engine_name: str) -> None:
    """Make a platform's tables."""
    async with DatabaseManager(url) as database:
        await make(database, engine_name)


def test_rights_name_every_table_of_ours() -> None:
    assert set(ours.NAMES) == set(grants.OURS) - {grants.PLATFORM_VERSION}
