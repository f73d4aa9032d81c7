"""The application: builds the server, ties it together, and ends it in order."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import structlog

from commserver import descriptors
from commserver.config import Config
from commserver.core.board import Board
from commserver.core.bus import EventBus
from commserver.core.clock import Clock, SystemClock
from commserver.core.dispatcher import Dispatcher
from commserver.core.finals import WEBHOOK, backend
from commserver.core.jobs import Recipient
from commserver.dao import migrations
from commserver.dao.dao_manager import DaoManager
from commserver.dao.dialect import Claim
from commserver.engine import discovery
from commserver.engine.container import SITE
from commserver.engine.sandbox import DockerSandbox, SandboxSettings
from commserver.engine.wrapper import DockerWrapper
from commserver.errors import ConfigError, SandboxError
from commserver.gateways.backend.client import Client
from commserver.gateways.browser.actions import Services
from commserver.gateways.browser.server import Server
from commserver.gateways.doorkeeper import Doorkeeper
from commserver.gateways.gateway import Gateway
from commserver.gateways.http.actions import Door
from commserver.gateways.http.admin_token import admin_token
from commserver.gateways.http.routing import Guard
from commserver.gateways.http.routing import routes as door_routes
from commserver.gateways.http.server import HttpServer
from commserver.gateways.http.webhook import Webhook
from commserver.gateways.listening import NoDescriptors
from commserver.graders.languages import LANGUAGES
from commserver.operations import opened, stored
from commserver.services import probes, verifiers
from commserver.services.announcement_service import AnnouncementService
from commserver.services.audit_service import AuditService
from commserver.services.auth_service import AuthService
from commserver.services.docker_manager import DockerManager, Sandbox
from commserver.services.exec_service import ExecService
from commserver.services.finals_service import FinalsService
from commserver.services.ledger import DatabaseLedger
from commserver.services.record_service import RecordService
from commserver.services.rehearsal_service import RehearsalService
from commserver.services.request_service import RequestService
from commserver.services.retention_service import RetentionService
from commserver.services.run_service import RunService
from commserver.services.status_service import StatusService
from commserver.services.sweep_service import SweepService
from commserver.services.verifiers.backend import TokenAsker
from commserver.services.verify_service import VerifyService
from commserver.services.watch_service import WatchService
from commserver.web import app as web

log = structlog.get_logger(__name__)

READY = 3.0  # seconds for the database to show that it is there
LINKS_GRACE = 5.0  # seconds for the doors to close after they were told to stop

REHEARSALS = "rehearsal"  # the site of containers that belong to no database
REHEARSAL_UIDS = 300_000  # the first: not those of a server beside us

MakeSandboxes = Callable[[str, str], Sequence[Sandbox]]  # given the ids of site and boot


def check(config: Config) -> None:
    """Return if the parts of the configuration fit what we have.

    Raises:
        ConfigError: they do not.
    """
    known = ", ".join(LANGUAGES)
    unknown = [name for name in config.docker.languages if name not in LANGUAGES]
    problems = [f"docker.languages.{name}: none of {known}" for name in unknown]
    problems += verifiers.problems(config, SystemClock())
    if problems:
        raise ConfigError(problems)


def engines(config: Config) -> list[str]:
    """Return the URLs of the engines to use: those configured, else the one on this machine.

    Where none answers yet, the first that might: it may come up later.
    """
    if config.docker.hosts:
        return list(config.docker.hosts)
    found = discovery.find(config.state_dir, os.environ, deadline=3.0)
    return [found or discovery.candidates(config.state_dir, os.environ)[0]]


def docker_sandboxes(config: Config, stack: AsyncExitStack) -> MakeSandboxes:
    """Return how the real sandboxes are made; `stack` closes what they hold."""

    def make(site: str, boot: str) -> Sequence[Sandbox]:
        sandboxes = []
        for url in engines(config):
            wrapper = DockerWrapper(url, deadline=config.docker.deadline)
            stack.callback(wrapper.close)
            sandboxes.append(_sandbox(config, wrapper, site, boot, SandboxSettings()))
        return sandboxes

    return make


def _sandbox(
    config: Config, wrapper: DockerWrapper, site: str, boot: str, settings: SandboxSettings
) -> DockerSandbox:
    """Return what executes requests as it is configured."""
    settings = replace(settings, runtime=config.docker.runtime)
    nested = config.docker.isolation == "nested"
    return DockerSandbox(wrapper, site=site, boot=boot, settings=settings, nested=nested)


@asynccontextmanager
async def rehearsals(config: Config) -> AsyncIterator[RehearsalService]:
    """Yield what judges teachers' own solutions, on the first engine that answers.

    Raises:
        ConfigError: none does.
    """
    silent = []
    for url in engines(config):
        wrapper = DockerWrapper(url, deadline=config.docker.deadline)
        settings = SandboxSettings(first_uid=REHEARSAL_UIDS)
        sandbox = _sandbox(config, wrapper, REHEARSALS, str(uuid.uuid4()), settings)
        try:
            await sandbox.languages()
            for left in await wrapper.containers({SITE: REHEARSALS}):
                if left.status == "exited":  # whoever had it was killed; what runs is another's
                    await wrapper.discard(left.name)
        except SandboxError as error:
            wrapper.close()
            silent.append(f"no container engine answers at {url}: {error}")
            continue
        try:
            yield RehearsalService(sandbox, slot=0)
        finally:
            await sandbox.close()
            wrapper.close()
        return
    raise ConfigError([*silent, "solutions run in containers: start an engine, or see `[docker]`"])


def told(config: Config) -> set[Recipient]:
    """Return who is configured to be told of runs' ends, apart from the students."""
    names = config.backend.links or ("backend",)
    return {*map(backend, names), *((WEBHOOK,) if config.http.told else ())}


@dataclass(slots=True)
class App:
    """A server that is built and has restored what an earlier process left, but not yet begun."""

    config: Config
    dispatcher: Dispatcher
    watch: WatchService
    finals: FinalsService
    docker: DockerManager
    server: Server
    http: HttpServer | None
    webhook: Webhook | None
    door: Door
    asking: list[Gateway]  # the gateways through which work comes in
    sweep: SweepService
    retention: RetentionService
    verify: VerifyService
    claim: Claim

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then end in order.

        First what runs may end within the grace time and the rest is put back, then the links are
        let go: they hear of everything that ended. What backends push until then waits for the
        next start: they say it once. At the door nothing is taken from the beginning.

        Raises:
            AlreadyManaged: another server has taken the database from us; in an exception group.
        """
        async with asyncio.TaskGroup() as tasks:
            own = [
                tasks.create_task(self.dispatcher.run()),
                tasks.create_task(self.watch.run()),
                tasks.create_task(self.finals.run()),
                tasks.create_task(self.claim.keep()),
            ]
            looking = [tasks.create_task(self.server.run(), name=self.server.name)]
            if self.http:
                looking.append(tasks.create_task(self.http.run(), name=self.http.name))
            if self.webhook:
                looking.append(tasks.create_task(self.webhook.run(), name=self.webhook.name))
            docker = tasks.create_task(self.docker.run(), name=self.docker.name)
            looking += [tasks.create_task(door.run(), name=door.name) for door in self.asking]
            sweeping = tasks.create_task(self.sweep.run())
            cleaning = tasks.create_task(self.retention.run(), name=self.retention.name)
            verifying = tasks.create_task(self.verify.run(), name=self.verify.name)
            await stop.wait()
            log.info("stopping", grace=self.config.queue.grace)
            self.docker.stop()
            self.door.shut = True
            sweeping.cancel()
            cleaning.cancel()
            verifying.cancel()
            await _ended([sweeping, cleaning, verifying])
            await self.docker.drain(self.config.queue.grace)
            await asyncio.wait({docker})
            for door in self.asking:
                door.stop()
            self.server.stop()
            if self.http:
                self.http.stop()
            if self.webhook:
                self.webhook.stop()
            await _ended(looking)
            for task in own:
                task.cancel()
        log.info("stopped", waiting=self.dispatcher.board.waiting())


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    """Wait for tasks that were told to stop, and cancel those that do not."""
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=LINKS_GRACE)
        for task in late:
            task.cancel()


@asynccontextmanager
async def built(
    config: Config,
    *,
    clock: Clock | None = None,
    sandboxes: MakeSandboxes | None = None,
    wait: bool = False,
) -> AsyncIterator[App]:
    """Yield the application on its database, of which it is the only manager meanwhile.

    sandboxes: what to run programs in, the configured engines unless tests say otherwise.
    wait: for as long as the database is away.

    Raises:
        ConfigError: the configuration cannot be used.
        AlreadyManaged: another server has this database.
        StoreError: the database is not there, or not migrated.
    """
    check(config)
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        config.state_dir.mkdir(parents=True, exist_ok=True)
        database = await stack.enter_async_context(opened(config, wait=wait))
        claim = await stack.enter_async_context(database.claim())
        await migrations.check(database)
        daos = DaoManager()
        site = await database.write(lambda c: daos.site.id(c, at=clock.utc()))
        await database.write(lambda c: daos.baseline.ensure(c, at=clock.utc()))
        boot = str(uuid.uuid4())

        files = stored(config)
        bus = EventBus()
        always = (WEBHOOK,) if config.http.told else ()
        ledger = DatabaseLedger(database, daos, clock, tell=always)
        dispatcher = Dispatcher(Board(), ledger, bus, clock)
        for lease in await ledger.restore(dispatcher.board):
            await dispatcher.release(lease)
        for recipient, count in await database.read(daos.notices.owed_by_recipient):
            if recipient not in told(config):
                log.warning("owed_to_nobody", recipient=recipient, finals=count)
        log.info("restored", site=site, boot=boot, waiting=dispatcher.board.waiting())

        runs = RunService(dispatcher, files)
        askers: list[TokenAsker] = []  # the backends, once they are made
        auth = AuthService(verifiers.chosen(config, database, daos, clock, askers))
        execs = ExecService(
            database,
            daos,
            files,
            dispatcher,
            runs,
            config.queue,
            config.docker,
            clock,
            tell=always,
        )
        keeper = Doorkeeper(auth, clock)  # one, so that guesses count on whichever port
        watch = WatchService(dispatcher, bus, clock, period=config.browser.place_period)
        make = sandboxes or docker_sandboxes(config, stack)
        docker = DockerManager(config.docker, make(site, boot), runs, bus, clock)
        finals = FinalsService(database, daos, clock, bus)
        records = RecordService(database, daos, dispatcher.board)
        announcements = AnnouncementService(database, daos, clock)
        server = Server(
            config.browser, Services(keeper, watch, finals, execs, records, announcements, clock)
        )
        webhook = Webhook(config.http, finals, clock) if config.http.told else None
        links = config.backend.each
        clients = [Client(name, one, execs, finals, clock) for name, one in links.items()]
        askers += clients
        asking: list[Gateway] = [*clients]
        sweep = SweepService(database, daos, execs, config.queue, clock)
        retention = RetentionService(database, daos, files, clock, config.database, config.files)
        verify = VerifyService(files, clock)
        status = StatusService(
            {
                "database": probes.database(database, clock),
                "engines": probes.engines(docker, dispatcher),
                "backends": probes.links(clients),
                "webhook": probes.webhook(webhook),
                "browsers": probes.browsers(lambda: server.connected, config.browser.connections),
                "queue": probes.queue(dispatcher, database, daos, clock, config.queue.limit),
                "finals": probes.finals(database, daos),
                "sweep": probes.sweep(sweep, config.queue),
                "files": probes.files(files),
                "disk": probes.disk(config.state_dir),
            },
            clock,
        )
        stack.push_async_callback(status.close)
        door = Door(
            execs,
            RequestService(database, daos, execs, clock),
            records,
            announcements,
            AuditService(database, daos, clock),
            status,
            ready=lambda: database.read(lambda c: daos.site.id(c, at=clock.utc()), deadline=READY),
        )
        http = None
        if config.http.enabled:
            token = admin_token(config.admin_token_file, os.environ)
            guard = Guard(config.http, token, clock)
            pages = web.routes(
                config.http,
                config.browser,
                keeper,
                records,
                clock,
                lambda: server.port,
            )
            http = HttpServer(config.http, [*door_routes(door, guard), *pages])
        yield App(
            config,
            dispatcher,
            watch,
            finals,
            docker,
            server,
            http,
            webhook,
            door,
            asking,
            sweep,
            retention,
            verify,
            claim,
        )


async def serve(config: Config) -> None:
    """Run the server until SIGTERM or SIGINT; a second signal ends it at once.

    So does the first while there is nothing to end in order yet: a database that is away is waited
    for.
    """
    begun = False
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    running = asyncio.current_task()
    assert running is not None

    def stopped() -> None:
        if stop.is_set() or not begun:
            running.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped)
    loop.set_exception_handler(NoDescriptors(SystemClock()))
    try:
        async with built(descriptors.prepared(config), wait=True) as app:
            begun = True
            await app.run(stop)
    except asyncio.CancelledError:
        if begun:
            raise
        log.info("stopped")
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
