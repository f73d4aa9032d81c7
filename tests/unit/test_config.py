"""The configuration: where each value comes from, and everything that can be wrong with it."""

import json
import os
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy.engine import make_url

from commserver.config import Backend, Config, Database, Docker, load, shown
from commserver.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no settings from outside."""
    for name in os.environ:
        if name.startswith("COMMSERVER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder: Path, text: str, name: str = "commserver.toml") -> Path:
    """Return the path of a file that says this."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path | None = None) -> list[str]:
    """Return everything that is wrong."""
    with pytest.raises(ConfigError) as caught:
        load(path)
    return list(caught.value.problems)


# -- where values come from -----------------------------------------------------------------------


def test_the_defaults_work() -> None:
    config = load()

    assert config.state_dir == Path("var")
    assert config.database_url == "sqlite+aiosqlite:///var/commserver.db"
    assert (config.browser.host, config.browser.port) == ("127.0.0.1", 8765)
    assert (config.backend.host, config.backend.port) == ("127.0.0.1", 9500)
    assert config.docker.slots == (os.cpu_count() or 1)
    assert (config.docker.isolation, config.docker.runtime) == ("nested", "")
    assert config.backend.secret() == ""


def test_a_file_says_otherwise(folder: Path) -> None:
    path = written(folder, '[browser]\nport = 1234\n[docker.languages]\npython = ["Serpent"]', "x")

    config = load(path)

    assert config.browser.port == 1234
    assert config.docker.languages == {"python": ("Serpent",)}


def test_the_file_of_the_working_folder_is_read_without_being_named(folder: Path) -> None:
    written(folder, "[browser]\nport = 1234")

    assert load().browser.port == 1234


def test_the_environment_may_name_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(folder, "[browser]\nport = 1234")
    monkeypatch.setenv(
        "COMMSERVER_CONFIG", str(written(folder, "[browser]\nport = 4321", "other.toml"))
    )

    assert load().browser.port == 4321


def test_a_file_that_is_named_wins_over_the_environments(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMMSERVER_CONFIG", "nowhere.toml")

    assert load(written(folder, "[browser]\nport = 1234", "x.toml")).browser.port == 1234


def test_the_environment_wins_over_the_file_key_by_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(folder, '[browser]\nport = 1234\nhost = "0.0.0.0"\n[queue]\nlimit = 5')
    monkeypatch.setenv("COMMSERVER_BROWSER__PORT", "4321")
    monkeypatch.setenv("COMMSERVER_QUEUE__MAX_TRIES", "7")

    config = load(path)

    assert (config.browser.port, config.browser.host) == (4321, "0.0.0.0")  # noqa: S104  # a value
    assert (config.queue.limit, config.queue.max_tries) == (5, 7)


def test_lists_and_switches_come_from_the_environment_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COMMSERVER_DOCKER__HOSTS", '["unix:///a.sock", "tcp://b:2375"]')
    monkeypatch.setenv("COMMSERVER_BACKEND__ENABLED", "false")
    monkeypatch.setenv("COMMSERVER_STATE_DIR", "elsewhere")

    config = load()

    assert config.docker.hosts == ("unix:///a.sock", "tcp://b:2375")
    assert not config.backend.enabled
    assert config.state_dir == Path("elsewhere")


def test_the_state_folder_of_the_command_line_wins_over_both(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMMSERVER_STATE_DIR", "from-environment")
    path = written(folder, 'state_dir = "from-file"')

    config = load(path, state_dir=folder / "mine")

    assert config.state_dir == folder / "mine"
    assert config.database_url == f"sqlite+aiosqlite:///{folder}/mine/commserver.db"


@pytest.mark.parametrize("name", ["what?", "a@b:c", "100%25", "un été", "#1"])
def test_the_database_is_in_the_state_folder_whatever_that_is_called(
    folder: Path, name: str
) -> None:
    config = load(state_dir=folder / name)

    assert make_url(config.database_url).database == f"{folder}/{name}/commserver.db"
    assert make_url(shown(config)["database"]["url"]).database == f"{folder}/{name}/commserver.db"


def test_a_database_that_is_named_is_used_wherever_the_state_is(folder: Path) -> None:
    path = written(folder, '[database]\nurl = "sqlite:///x.db"')

    assert load(path, state_dir=folder).database_url == "sqlite:///x.db"


def test_variables_of_ours_that_are_no_keys_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("TOKEN", "PULL"):
        monkeypatch.setenv(f"COMMSERVER_{name}", "1")

    load()


def test_nothing_can_be_changed_afterwards() -> None:
    config = load()

    for changed in (config, config.browser):
        with pytest.raises(ValidationError):
            changed.port = 1  # type: ignore[union-attr]  # that it cannot be set is the point


# -- what can be wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nonsense = 1", "nonsense: "),
        ("[nonsense]\nport = 1", "nonsense: "),
        ("[browser]\nprot = 1", "browser.prot: "),
        ("[docker.nonsense]\nport = 1", "docker.nonsense: "),
        ("[browser]\nport = 70000", "browser.port: "),
        ('[browser]\nport = "high"', "browser.port: "),
        ("browser = 5", "browser: "),
        ('[backend]\nframing = "smoke"', "backend.framing: "),
        ("[queue]\ngrace = -1", "queue.grace: "),
        ("[queue]\ngrace = nan", "queue.grace: "),
        ('[queue]\nsweep = "always"', "queue.sweep: "),
        ("[queue]\nsweep_period = 0", "queue.sweep_period: "),
        ("[queue]\nsweep_age = -1", "queue.sweep_age: "),
        ("[database]\ntimeout = 0", "database.timeout: "),
        ("[docker]\nslots = 0", "docker.slots: "),
        ('[docker]\nhosts = "unix:///x"', "docker.hosts: "),
        ('[docker]\nisolation = "none"', "docker.isolation: "),
        ('[log]\nlevel = "LOUD"', "log.level: "),
        ('[backend]\ntoken = "a"\ntoken_file = "b"', "backend: "),
        ('[backend.links.a]\ntoken = "a"\ntoken_file = "b"', "backend.links.a: "),
        ("[backend.links.a]\n[backend.links.b]\nport = 9500", "backend: "),
        ('[backend.links.a]\nhost = "Host"\n[backend.links.b]\nhost = "host"', "backend: "),
        ("[backend.links.school-a]\nport = 1", "backend.links.school-a"),
    ],
)
def test_a_problem_is_named_by_its_key(folder: Path, text: str, problem: str) -> None:
    [said] = problems(written(folder, text))

    assert said.startswith(problem)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[browser]\nprot = 1", "browser.prot: unknown key; did you mean `port`?"),
        ("brwoser = 1", "brwoser: unknown key; did you mean `browser`?"),
        ("[browser.jwt]\nlee = 1", "browser.jwt.lee: unknown key; did you mean `leeway`?"),
        (
            "[backend.links.east]\ntokn = 'x'",
            "backend.links.east.tokn: unknown key; did you mean `token`?",
        ),
        ("[queue]\nzzz = 1", "queue.zzz: unknown key"),
    ],
)
def test_a_key_that_nobody_knows_is_told_with_the_one_that_may_be_meant(
    folder: Path, text: str, said: str
) -> None:
    assert problems(written(folder, text)) == [said]


def test_all_problems_are_told_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMSERVER_NONSENSE__PORT", "1")
    monkeypatch.setenv("COMMSERVER_BROWSER_PORT", "1")
    monkeypatch.setenv("COMMSERVER_QUEUE__LIMITS", "1")
    monkeypatch.setenv("COMMSERVER_QUEUE__LIMIT", "none")
    path = written(folder, '[browser]\nprot = 1\nport = "high"\n[nonsense]\n')

    said = problems(path)

    assert sorted(problem.partition(":")[0] for problem in said) == [
        "COMMSERVER_BROWSER_PORT",
        "COMMSERVER_NONSENSE__PORT",
        "browser.port",
        "browser.prot",
        "nonsense",
        "queue.limit",
        "queue.limits",
    ]


@pytest.mark.parametrize("name", ["DOCKER__HOSTS", "DOCKER__LANGUAGES", "DOCKER", "QUEUE"])
def test_a_list_or_table_of_the_environment_that_is_not_json_is_a_problem(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"COMMSERVER_{name}", "unix:///var/run/docker.sock")

    [said] = problems()

    assert name.partition("__")[0].lower() in said
    assert "JSON" in said


def test_a_file_that_is_named_must_be_there(folder: Path) -> None:
    [said] = problems(folder / "nowhere.toml")

    assert said.startswith(f"{folder / 'nowhere.toml'}: ")


def test_a_file_that_the_environment_names_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMSERVER_CONFIG", "nowhere.toml")

    [said] = problems()

    assert said.startswith("nowhere.toml: ")


@pytest.mark.parametrize("content", [b"port = ", b"\xff", b"a = 1\na = 2"])
def test_a_file_that_is_not_toml_is_a_problem(folder: Path, content: bytes) -> None:
    (folder / "commserver.toml").write_bytes(content)

    [said] = problems()

    assert said.startswith("commserver.toml: ")


def test_links_to_one_host_at_two_ports_and_to_two_hosts_at_one_port_are_right() -> None:
    links = {"a": {"host": "x"}, "b": {"host": "x", "port": 9501}, "c": {"host": "y"}}

    assert set(Backend.model_validate({"links": links}).each) == set(links)


# -- secrets --------------------------------------------------------------------------------------


def test_the_token_may_be_in_a_file(folder: Path) -> None:
    secret = written(folder, "hush\n", "token")

    config = load(written(folder, f'[backend]\ntoken_file = "{secret}"'))

    assert config.backend.secret() == "hush"


def test_a_token_file_that_cannot_be_read_is_a_problem_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMMSERVER_NONSENSE", "1")

    said = problems(written(folder, '[backend]\ntoken_file = "nowhere"'))

    assert [problem.partition(":")[0] for problem in said] == [
        "COMMSERVER_NONSENSE",
        "backend.token_file",
    ]


def test_nobody_looks_for_the_token_of_a_backend_that_is_not_dialled(folder: Path) -> None:
    load(written(folder, '[backend]\nenabled = false\ntoken_file = "nowhere"'))


def test_a_token_file_that_is_gone_later_is_a_problem_then() -> None:
    with pytest.raises(ConfigError, match=r"backend\.token_file: "):
        Backend(token_file=Path("nowhere")).secret()


SECRET = "correct-horse"
URLS = [
    f"postgresql+asyncpg://judge:{SECRET}@db.example:5432/school",
    f"postgresql+asyncpg://judge:{SECRET}/@db.example/school",
    f"postgresql://:{SECRET}@/school?host=/run",
    f"postgresql://judge:x@db.example/school?password={SECRET}",
]


@pytest.mark.parametrize("url", URLS)
def test_secrets_are_never_shown(url: str) -> None:
    config = Config(
        database=Database(url=url), backend=Backend(token=SecretStr(SECRET)), state_dir=Path("var")
    )

    said = [json.dumps(shown(config)), repr(config), str(config), repr(config.backend)]

    assert not any(SECRET in text for text in said)
    assert shown(config)["backend"]["token"] == "**********"
    assert "***@" in shown(config)["database"]["url"]


def test_what_is_no_secret_is_shown_as_it_is_used(folder: Path) -> None:
    config = load(state_dir=folder / "state")

    assert shown(config)["database"]["url"] == config.database_url
    assert shown(config)["state_dir"] == f"{folder}/state"
    assert shown(config)["docker"]["languages"] == json.loads(json.dumps(Docker().languages))


def test_a_database_that_is_no_url_is_not_shown_at_all() -> None:
    with pytest.raises(ValidationError) as caught:
        Database(url=SECRET)

    assert SECRET not in str(caught.value)


def test_a_problem_does_not_tell_the_value(folder: Path) -> None:
    said = problems(
        written(folder, f'[backend]\ntoken = ["{SECRET}"]\n[database]\nurl = ["{SECRET}"]')
    )

    assert [problem.partition(":")[0] for problem in said] == ["database.url", "backend.token"]
    assert SECRET not in "".join(said)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://judge:{SECRET}/p@ss:w#rd@127.0.0.1:5432/campus",
        f"postgresql://judge:{SECRET}@127.0.0.1:abc/campus",
        f"postgresql://judge:{SECRET}@[::1/campus",
        f"postgresql://judge:{SECRET}@127.0.0.1:99999/campus",
        f"postgresql://judge:{SECRET}@127.0.0.1/campus?port=5432{SECRET}",
        f"judge {SECRET}",
    ],
)
def test_a_url_that_cannot_be_read_is_one_sentence_without_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("COMMSERVER_DATABASE__URL", url)

    with pytest.raises(ConfigError) as caught:
        load()

    [problem] = caught.value.problems
    assert problem.startswith("database.url: ")
    assert not any(part in repr(caught.value) for part in (SECRET, "w#rd", "p@ss"))
