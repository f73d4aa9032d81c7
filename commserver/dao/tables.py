"""Every table, in two families that two series of migrations keep (see `migrations.py`).

`platform`: the teaching platform's own. On a live site they are somebody else's, may be views and
may have more columns, and often have neither keys nor indexes: nothing here may rely on those. Its
timestamps are epoch milliseconds.

`commserver`: ours. Moments are timezone-aware UTC. No foreign key leads to a platform table.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    text,
)

from commserver.core.jobs import Purpose, Requires
from commserver.core.states import State
from commserver.core.verdicts import Cause, Fault, Status
from commserver.dao.column_types import (
    CleanText,
    Content,
    Grade,
    Id,
    Json,
    Name,
    UtcDateTime,
    Whole,
    text_enum,
)
from commserver.dao.verdicts import VerdictRecord

NAMING = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}

platform = MetaData(naming_convention=NAMING)
commserver = MetaData(naming_convention=NAMING)


accounts = Table(
    "accounts",
    platform,
    Column("id", Id, primary_key=True),
    Column("username", Name(75), nullable=False, unique=True),
)

languages = Table(
    "languages",
    platform,
    Column("id", Id, primary_key=True),
    Column("name", Name(75), nullable=False, unique=True),
)

courses = Table(
    "courses",
    platform,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("language_id", Id, ForeignKey("languages.id"), nullable=False, index=True),
    Column("title", Name(250), nullable=False),
)

exercises = Table(
    "exercises",
    platform,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("course_id", Id, ForeignKey("courses.id"), nullable=False, index=True),
    Column("title", Name(250), nullable=False),
    Column("instruction", Content, nullable=False),
    Column("grade_max", Grade, nullable=False),
)

user_exercises = Table(
    "user_exercises",
    platform,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("exercise_id", Id, ForeignKey("exercises.id"), nullable=False, index=True),
)

codes = Table(
    "codes",
    platform,
    Column("id", Id, primary_key=True),
    Column("user_exercise_id", Id, ForeignKey("user_exercises.id"), nullable=False, index=True),
    Column("name", Name(75), nullable=False),
    Column("content", Content, nullable=False),
    Column("create_timestamp", Whole, nullable=False),
    Column("modify_timestamp", Whole, nullable=False),
)

scripts = Table(
    "scripts",
    platform,
    Column("id", Id, primary_key=True),
    Column("exercise_id", Id, ForeignKey("exercises.id"), nullable=False, index=True),
    Column("content", Content, nullable=False),
)

grades = Table(
    "grades",
    platform,
    Column("id", Id, primary_key=True),
    Column("user_exercise_id", Id, ForeignKey("user_exercises.id"), nullable=False, index=True),
    Column("value", Grade, nullable=False),
    Column("timestamp", Whole, nullable=False),
)

logs = Table(
    "logs",
    platform,
    Column("id", Id, primary_key=True),
    Column("user_exercise_id", Id, ForeignKey("user_exercises.id"), nullable=False, index=True),
    Column("content", Content, nullable=False),
    Column("timestamp", Whole, nullable=False),
)


# Said once: a partial index is used only by a query that repeats its condition to the letter.
UNFINISHED = "state IN ('queued', 'leased', 'running')"

executions = Table(
    "executions",
    commserver,
    Column("id", String(36), primary_key=True),
    # The platform's row, without a foreign key: it may be a view or another owner's.
    Column("user_exercise_id", BigInteger),
    Column("account_id", BigInteger, index=True),
    Column("owner", CleanText, nullable=False),
    Column("course", CleanText, nullable=False),
    Column("gateway", CleanText, nullable=False),
    Column("peer", CleanText, nullable=False),
    Column("reference", CleanText, nullable=False),
    Column("purpose", text_enum(Purpose, "purpose"), nullable=False),
    Column("content_hash", String(64), nullable=False),
    Column("requires", Json(Requires, shared=True), nullable=False),
    Column("lease", Double),  # seconds a runner may hold it without extending
    # The sort key, fixed at entry.
    Column("priority", Integer, nullable=False),
    Column("tag", Double, nullable=False),
    Column("entry", BigInteger, nullable=False, index=True),
    Column("state", text_enum(State, "state"), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("deaths", Integer, nullable=False),
    Column("max_tries", Integer, nullable=False),
    # How it ended.
    Column("status", text_enum(Status, "status")),
    Column("grade", Integer),
    Column("grade_max", Integer),
    Column("fault", text_enum(Fault, "fault")),
    Column("failure_cause", text_enum(Cause, "failure_cause")),
    Column("message", CleanText, nullable=False, server_default=""),
    Column("container", CleanText, nullable=False, server_default=""),
    Column("verdict", Json(VerdictRecord)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    # Who is owed its end beside its student: recipients with a blank between.
    Column("tell", CleanText, nullable=False, server_default=""),
    # Of the latest try: who had it, on which engine, and from when.
    Column("runner", CleanText, nullable=False, server_default=""),
    Column("engine", CleanText, nullable=False, server_default=""),
    Column("leased_at", UtcDateTime),
)

Index(
    "uq_executions_waiting",
    executions.c.user_exercise_id,
    executions.c.purpose,
    unique=True,
    sqlite_where=text("state = 'queued'"),
    postgresql_where=text("state = 'queued'"),
)
Index(
    "ix_executions_unfinished",
    executions.c.priority,
    executions.c.tag,
    executions.c.entry,
    sqlite_where=text(UNFINISHED),
    postgresql_where=text(UNFINISHED),
)
Index(None, executions.c.user_exercise_id, executions.c.entry)

leases = Table(
    "leases",
    commserver,
    Column("id", String(36), primary_key=True),
    Column(
        "execution_id",
        ForeignKey("executions.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("runner", CleanText, nullable=False),
    Column("engine", CleanText, nullable=False),
    Column("features", Json(dict[str, frozenset[str | int]]), nullable=False),
    Column("until", UtcDateTime),  # NULL: never lost
    Column("granted_at", UtcDateTime, nullable=False),
)

series = Table(
    "series",
    commserver,
    Column("recipient", String(200), primary_key=True),
    Column("last", BigInteger, nullable=False),  # the highest number given, 1 at first
)

notices = Table(
    "notices",
    commserver,
    Column("recipient", String(200), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column(
        "execution_id",
        ForeignKey("executions.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("created_at", UtcDateTime, nullable=False),
    Column("delivered_at", UtcDateTime),  # NULL: owed
    Column("pushed_at", UtcDateTime),  # when it first left, noted a moment later
)

# For what is read and written at each receipt, however long a series has become.
for _moment in ("delivered_at", "pushed_at"):
    Index(
        f"ix_notices_{_moment.removesuffix('_at')}_not",
        notices.c.recipient,
        notices.c.seq,
        sqlite_where=text(f"{_moment} IS NULL"),
        postgresql_where=text(f"{_moment} IS NULL"),
    )

baseline = Table(
    "baseline",
    commserver,
    Column("single", Integer, primary_key=True, autoincrement=False),
    Column("attempt", BigInteger, nullable=False),  # user_exercises.id up to here are no news
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint("single = 1", name="single"),
)

tokens = Table(
    "tokens",
    commserver,
    Column("sha256", String(64), primary_key=True),  # of the token's UTF-8, lower-case hex
    Column("account_id", BigInteger, nullable=False, index=True),
    Column("label", CleanText, nullable=False, server_default=""),
    Column("life", Integer, nullable=False),  # seconds it lives on after each use
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("last_used_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
)

site = Table(
    "site",
    commserver,
    Column("single", Integer, primary_key=True, autoincrement=False),
    Column("id", String(36), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint("single = 1", name="single"),
)

# What admins did, over HTTP or from the command line. (Plain names are often a platform's own.)
audit = Table(
    "commserver_audit",
    commserver,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("who", CleanText, nullable=False),
    Column("action", CleanText, nullable=False),  # a verb and its object: "token.create"
    Column("target", CleanText, nullable=False, server_default=""),
    Column("detail", CleanText, nullable=False, server_default=""),
)

# What is said to all students; the newest counts, unless it was withdrawn or its time is over.
announcements = Table(
    "commserver_announcements",
    commserver,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("text", CleanText, nullable=False),
    Column("until", UtcDateTime),  # NULL: until it is withdrawn
    Column("created_at", UtcDateTime, nullable=False),
    Column("withdrawn_at", UtcDateTime),
)

# Requests of the HTTP door that must not be carried out twice, by the caller's own key.
requests = Table(
    "commserver_requests",
    commserver,
    Column("key", String(200), primary_key=True),
    Column("body", String(64), nullable=False),  # sha256 of what was asked
    Column("execution_id", String(36)),  # the run that stands for it, NULL until it is there
    Column("created_at", UtcDateTime, nullable=False, index=True),
)
