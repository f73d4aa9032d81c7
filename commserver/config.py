"""The configuration: one frozen section a component, from a TOML file and the environment.

`commserver.toml` (`--config` or `COMMSERVER_CONFIG`); every key also as `COMMSERVER_SECTION__KEY`,
which wins. A key that nobody knows is an error; all problems are told at once.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from commserver.errors import ConfigError

PREFIX = "COMMSERVER_"
NOT_KEYS = {"CONFIG", "TOKEN", "PULL"}  # variables of ours that are no configuration keys

UNREADABLE_URL = (
    "not a URL such as postgresql://user:password@host/database; in a password, "
    "/ @ : # ? and % are written as %2F %40 %3A %23 %3F and %25"
)
PLAIN = {"host", "port", "ssl", "sslmode"}  # parameters of a database's URL that are no secrets

Seconds = float
Bytes = int
Days = int


class Section(BaseModel):
    """What all sections have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Database(Section):
    """Where the platform's tables and ours are."""

    # SQLAlchemy URL, which may hold a password; "" = SQLite in the state directory.
    url: str = Field(default="", repr=False)
    timeout: Seconds = Field(default=30.0, gt=0)  # for a connection, and for each transaction
    pool: int = Field(default=5, ge=1)  # PostgreSQL: connections to write with; as many to read
    # How long what is ours is kept once a run has ended, 0 = for ever: its row; finals, delivered
    # or not; what its student could read, in our own record (never the platform's `logs`).
    keep_executions: Days = Field(default=365, ge=0, le=36_500)
    keep_notices: Days = Field(default=30, ge=0, le=36_500)
    keep_logs: Days = Field(default=90, ge=0, le=36_500)

    @field_validator("url")
    @classmethod
    def _readable(cls, url: str) -> str:
        """Refuse what cannot be read, in words that show nothing of it: it may hold a password."""
        try:
            parsed = make_url(url) if url else None
        except (ArgumentError, ValueError):
            raise ValueError(UNREADABLE_URL) from None
        ports = [parsed.port, parsed.query.get("port")] if parsed else []
        if any(port is not None and not _is_port(str(port)) for port in ports):
            raise ValueError("its port is no number from 1 to 65535")
        return url


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536


class Link(Section):
    """What one backend may have of its own; what it has not is the section's."""

    host: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    token: SecretStr | None = None
    token_file: Path | None = None
    framing: Literal["lines", "length"] | None = None
    tls: bool | None = None
    tls_ca: Path | None = None

    @model_validator(mode="after")
    def _one_token(self) -> "Link":
        if self.token and self.token.get_secret_value() and self.token_file:
            raise ValueError("token and token_file are both given")
        return self


class Backend(Section):
    """A teaching platform's backend, which listens; we dial in.

    The section itself is the one there is, named `backend`, or with `links` what they share.
    """

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=9500, ge=1, le=65535)
    token: SecretStr = SecretStr("")  # SERVER_TOKEN
    token_file: Path | None = None
    framing: Literal["lines", "length"] = "lines"
    frame_limit: Bytes = Field(default=1 << 20, ge=64)
    # With "length": what is said after so long a silence of ours, as KryoNet's peers expect it; 0 =
    # never. They drop a side that is silent for 12 s.
    keepalive_period: Seconds = Field(default=8.0, ge=0)
    # An object without a `cmd`, which is what a keep-alive of KryoNet is to any JSON library: its
    # own JsonSerialization reads it as a plain Object, which no listener knows.
    keepalive_frame: str = "{}"
    tls: bool = False
    tls_ca: Path | None = None  # whom to trust, PEM; None = whom this machine trusts
    tls_cert: Path | None = None  # ours, where the backend asks for one, PEM with its chain
    tls_key: Path | None = None
    connect_timeout: Seconds = Field(default=5.0, gt=0)
    retry_first: Seconds = Field(
        default=0.2, gt=0
    )  # pause before the first redial, doubled, with jitter
    retry_most: Seconds = Field(default=10.0, gt=0)
    links: Mapping[Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_]{0,39}$")], Link] = {}

    @model_validator(mode="after")
    def _one_token(self) -> "Backend":
        if self.token.get_secret_value() and self.token_file:
            raise ValueError("token and token_file are both given")
        return self

    @model_validator(mode="after")
    def _each_elsewhere(self) -> "Backend":
        names: dict[tuple[str, int], str] = {}
        for name, link in self.links.items():
            place = ((link.host or self.host).lower(), link.port or self.port)
            if place in names:
                both = f"{names[place]} and {name}"
                raise ValueError(f"links {both} have the same host and port, {place[0]}:{place[1]}")
            names[place] = name
        return self

    @property
    def each(self) -> Mapping[str, "Backend"]:
        """Every configured backend by its name, with its own values filled in; none if disabled."""
        if not self.enabled:
            return {}
        if not self.links:
            return {"backend": self}
        return {name: self._of(link) for name, link in self.links.items()}

    def _of(self, link: Link) -> "Backend":
        own = {key: value for key, value in link if value is not None}
        if "token" in own or "token_file" in own:  # one of its own replaces either
            own = {"token": SecretStr(""), "token_file": None} | own
        return self.model_copy(update={**own, "links": {}})

    def secret(self) -> str:
        """Return the SERVER_TOKEN.

        Raises:
            ConfigError: the file that should hold it cannot be read.
        """
        return _secret(self.token, self.token_file, "backend.token_file")


def _secret(given: SecretStr, file: Path | None, key: str) -> str:
    if file is None:
        return given.get_secret_value()
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{key}: {error}"]) from error


class Jwt(Section):
    """What a signed token must be to be taken (`browser.verifier = "jwt"`)."""

    algorithms: tuple[str, ...] = ("EdDSA", "ES256", "RS256")  # never "none"
    keys: Path | None = None  # public keys: PEM, or a JSON Web Key Set
    secret: SecretStr = SecretStr("")  # for HS256 alone, 32 bytes or more
    secret_file: Path | None = None
    issuer: str = ""  # what `iss` must be, "" = anything
    audience: str = ""  # what `aud` must have, "" = it must have none
    leeway: Seconds = Field(default=10.0, ge=0)  # by which clocks may differ


class Browser(Section):
    """The WebSocket server that students' browsers dial."""

    host: str = "127.0.0.1"
    port: int = Field(default=8765, ge=0, le=65535)  # 0 = any free one
    # Pages of other origins than the server's own host that may connect; "*" = every one.
    origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()  # whose X-Forwarded-For counts: addresses or networks
    tls_cert: Path | None = None  # PEM, with its chain
    tls_key: Path | None = None
    verifier: Literal["database", "backend", "jwt"] = "database"  # who says whose a token is
    verifier_timeout: Seconds = Field(default=5.0, gt=0)  # for a backend's answer
    jwt: Jwt = Jwt()
    auth_timeout: Seconds = Field(default=10.0, gt=0)
    auth_failures: int = Field(default=3, ge=1)
    recheck_period: Seconds = Field(default=900.0, gt=0)  # whether a token is still good
    commands: int = Field(default=20, ge=1)  # a second, for one socket; four times that in a burst
    frame_limit: Bytes = Field(default=16 << 10, ge=64)
    owed_limit: int = Field(
        default=256, ge=1
    )  # packets waiting for one slow reader before it is closed
    ping_period: Seconds = Field(default=20.0, gt=0)
    ping_timeout: Seconds = Field(default=20.0, gt=0)
    place_period: Seconds = Field(default=1.0, ge=0)  # a place is told at most this often
    connections: int = Field(default=12_000, ge=1)


class Http(Section):
    """The HTTP side: the students' page, the door for platforms, the admins' endpoints."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)  # 0 = any free one
    tls_cert: Path | None = None  # PEM, with its chain
    tls_key: Path | None = None
    trusted_proxies: tuple[str, ...] = ()  # as for browsers
    token: SecretStr = SecretStr("")  # what a platform shows at the door; "" = the door is shut
    token_file: Path | None = None
    body_limit: Bytes = Field(default=64 << 10, ge=64)
    timeout: Seconds = Field(default=10.0, gt=0)  # for a request to arrive
    connections: int = Field(default=6_000, ge=1)  # a browser has six
    # Where the page finds the WebSocket; "" = its own host, at the port of the section `browser`.
    websocket_url: str = Field(
        default="", pattern=r"""^(wss?://[^\s;,'"<>\\/]+(/[^\s;,'"<>\\]*)?)?$"""
    )
    # What is told of each end of a run, by POST; "" = nobody. Without a name and a password in it.
    webhook_url: str = Field(default="", pattern=r"^(https?://[^\s/@?#]+([/?]\S*)?)?$")
    webhook_secret: SecretStr = SecretStr("")  # signs what it is told
    webhook_secret_file: Path | None = None
    webhook_ca: Path | None = None  # whom to trust, PEM; None = whom this machine trusts
    webhook_timeout: Seconds = Field(default=10.0, gt=0)

    @model_validator(mode="after")
    def _complete(self) -> "Http":
        if self.token.get_secret_value() and self.token_file:
            raise ValueError("token and token_file are both given")
        if self.webhook_secret.get_secret_value() and self.webhook_secret_file:
            raise ValueError("webhook_secret and webhook_secret_file are both given")
        secret = self.webhook_secret.get_secret_value() or self.webhook_secret_file
        if self.webhook_url and not secret:
            raise ValueError("webhook_url needs webhook_secret: what it is told is signed")
        if self.tls_key and not self.tls_cert:
            raise ValueError("tls_key needs tls_cert")
        return self

    @property
    def told(self) -> bool:
        """True when there is a webhook to tell."""
        return self.enabled and bool(self.webhook_url)

    def secret(self) -> str:
        """Return the server token of the door.

        Raises:
            ConfigError: the file that should hold it cannot be read.
        """
        return _secret(self.token, self.token_file, "http.token_file")

    def signing_secret(self) -> str:
        """Return what signs webhooks.

        Raises:
            ConfigError: the file that should hold it cannot be read.
        """
        return _secret(self.webhook_secret, self.webhook_secret_file, "http.webhook_secret_file")


class Docker(Section):
    """The engines that run what students hand in."""

    hosts: tuple[str, ...] = ()  # engine URLs; none = the one that answers on this machine
    slots: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)  # at once, an engine
    deadline: Seconds = Field(default=30.0, gt=0)  # for one call of the engine
    probe_period: Seconds = Field(
        default=5.0, gt=0
    )  # how often an engine is asked whether it is there
    # A run has namespaces of its own in a container that serves many, or a container of its own.
    isolation: Literal["nested", "fresh"] = "nested"
    runtime: str = ""  # the engines' name of what runs containers, such as "runsc"; "" = theirs
    languages: Mapping[str, tuple[str, ...]] = {  # ours: the platform's names, case-blind
        "python": ("python", "python3", "python 3", "py"),
        "c": ("c", "c11", "c17", "gcc", "ansi c"),
    }


class Queue(Section):
    """What waits, and what is done when we are told to stop."""

    limit: int = Field(default=1_000_000, ge=1)  # waiting runs; a submission above it is refused
    max_tries: int = Field(default=3, ge=1)
    grace: Seconds = Field(default=30.0, ge=0)  # for running ones to end after SIGTERM
    # What is run that no backend asked for: nothing, attempts that were never run, or also newer
    # content of others. A platform that saves drafts where it keeps what is handed in: "off".
    sweep: Literal["off", "new", "changed"] = "new"
    sweep_period: Seconds = Field(default=30.0, gt=0)  # from the end of one to the next
    sweep_age: Seconds = Field(default=90.0, ge=0)  # that a content must have stood unchanged


class Files(Section):
    """What was handed in, as it was frozen for its runs, and the large files of exercises."""

    keep: Days = Field(default=180, ge=0, le=36_500)  # after its last run has ended; 0 = for ever
    # How much there may be, as it is counted on a disk of 4 KiB blocks: of all, and of one. What is
    # above is refused. 0 = as much as the disk takes.
    limit: Bytes = Field(default=20 << 30, ge=0)
    file_limit: Bytes = Field(default=64 << 20, ge=0)


class Log(Section):
    """What is said, and how."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["auto", "text", "json"] = "auto"


class Config(BaseSettings):
    """All of it. `state_dir` holds whatever we write: database, files, locks."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter="__",
    )

    state_dir: Path = Path("var")
    database: Database = Database()
    backend: Backend = Backend()
    browser: Browser = Browser()
    http: Http = Http()
    docker: Docker = Docker()
    queue: Queue = Queue()
    files: Files = Files()
    log: Log = Log()

    @property
    def files_dir(self) -> Path:
        """Where what was handed in is kept."""
        return self.state_dir / "files"

    @property
    def admin_token_file(self) -> Path:
        """Where the token is that opens the admins' endpoints: made by the server, for root."""
        return self.state_dir / "admin.token"

    @property
    def database_url(self) -> str:
        """Where the database is, with the default filled in."""
        path = str(self.state_dir / "commserver.db")
        return self.database.url or str(URL.create("sqlite+aiosqlite", database=path))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file, whose content comes as arguments."""
        return env_settings, init_settings


def load(path: Path | None = None, *, state_dir: Path | None = None) -> Config:
    """Return the effective configuration.

    path: the TOML file; without one `COMMSERVER_CONFIG`, then `commserver.toml` where there is one.
    state_dir: wins over both.

    Raises:
        ConfigError: with every problem that was found.
    """
    values = _read(path)
    problems = [
        f"{name}: unknown key" for name in os.environ if name.startswith(PREFIX) and _unknown(name)
    ]
    try:
        config = Config(**values)
    except ValidationError as error:
        problems += [
            f"{'.'.join(map(str, problem['loc']))}: {_said(problem)}"
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigError(problems) from error
    except SettingsError as error:
        raise ConfigError([*problems, f"{error}: lists and tables are written as JSON"]) from error
    secrets = [one.secret for one in config.backend.each.values()]
    for secret in (*secrets, config.http.secret, config.http.signing_secret):
        try:
            secret()
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return config.model_copy(update={"state_dir": state_dir}) if state_dir else config


def _read(path: Path | None) -> dict[str, Any]:
    named = path or (Path(name) if (name := os.environ.get(f"{PREFIX}CONFIG")) else None)
    path = named or Path("commserver.toml")
    if named is None and not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError([f"{path}: {error}"]) from error


def _said(problem: ErrorDetails) -> str:
    """Return what is wrong with a key; of one that nobody knows, which may be meant."""
    if problem["type"] != "extra_forbidden":
        return problem["msg"]
    *path, key = problem["loc"]
    near = difflib.get_close_matches(str(key), list(_keys(Config, path)), n=1)
    return f"unknown key; did you mean `{near[0]}`?" if near else "unknown key"


def _keys(section: type[BaseModel], path: Sequence[int | str]) -> Iterable[str]:
    """Return the keys of the section at a path; none where that is no section."""
    keys: Iterable[str] = section.model_fields
    if not path:
        return keys
    field = section.model_fields.get(str(path[0]))
    if field is None:
        return ()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
        return _keys(field.annotation, path[1:])
    # A table of sections, one below each name.
    for part in get_args(field.annotation):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return _keys(part, path[2:])
    return ()


def warnings(config: Config) -> list[str]:
    """Return what is allowed and yet hardly meant, a sentence each."""
    single = not config.backend.links
    return [
        f"{'backend' if single else f'backend.links.{name}'}.token is empty: the backend will "
        "not let us in, unless it takes an empty one"
        for name, backend in config.backend.each.items()
        if not backend.secret()
    ]


def _unknown(name: str) -> bool:
    section = name.removeprefix(PREFIX).split("__")[0]
    return section not in NOT_KEYS and section.lower() not in Config.model_fields


def shown(config: Config) -> dict[str, Any]:
    """Return the effective values for people: secrets masked, passwords out of URLs."""
    values = config.model_dump(mode="json")
    url = make_url(config.database_url)
    told = {key: value if key in PLAIN else "***" for key, value in url.query.items()}
    values["database"]["url"] = url.set(query=told).render_as_string(hide_password=True)
    return values
