"""What is between two programs that run at once, or one after the other: everything."""

from dataclasses import replace
from itertools import pairwise

import pytest

from commserver.core.execution import (
    MIB,
    Case,
    Descriptor,
    ExecutionRequest,
    File,
    Limits,
    Pipe,
    Resource,
    Role,
    Stage,
)
from commserver.engine.budget import budget
from commserver.engine.container import Container
from commserver.engine.frames import Walls
from commserver.engine.pool import Key
from commserver.engine.room import needed
from commserver.engine.wrapper import DockerWrapper
from tests.lab import ASK, Lab, alone, outputs, python, ran, said

pytestmark = pytest.mark.docker

PATIENT = Limits(cpu=5.0, real=60.0)

# Has secrets everywhere, says so, and waits until the other has looked.
HIDES = r"""
import ctypes, mmap, os, signal, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
open("secret", "w").write("SECRET")
for folder in ("/tmp", "/dev/shm"):
    if os.access(folder, os.W_OK): open(folder + "/secret", "w").write("SECRET")
memory = bytearray(b"SECRET" * 1000)
segment = libc.shmget(0x5EC, 4096, 0o1600)
queue = libc.mq_open(b"/secret", os.O_CREAT | os.O_RDWR, 0o600, None)
server = socket.socket(socket.AF_UNIX); server.bind("\0secret"); server.listen()
local = socket.create_server(("127.0.0.1", 5000))
main, other = os.openpty()
reader, writer = os.pipe(); os.write(writer, b"SECRET")
for number in range(1, 65):
    try: signal.signal(number, lambda *_: os._exit(9))
    except (OSError, ValueError): pass
print("hidden", flush=True)
sys.stdin.read()
print(open("secret").read(), segment >= 0, queue >= 0, file=sys.stderr)
"""

# Looks wherever there is something to be seen, and meddles.
SEEKS = r"""
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
input()
found = []

def look(folder):
    for name in os.listdir(folder) if os.access(folder, os.R_OK) else ():
        if name != "seeks": found.append(f"{folder}/{name}")

def exists(what, check):
    try: result = check()
    except OSError: return
    if result not in (None, -1): found.append(what)

me = os.readlink("/proc/self")
pids = [pid for pid in os.listdir("/proc") if pid.isdigit() and pid != me]
print(len(pids) > 1, file=sys.stderr)
for folder in (".", "/box/work-1", "/box/keep", "/tmp", "/dev/shm"):
    look(folder)
for folder in ("/dev/mqueue", "/dev/pts"):
    try: names = [name for name in os.listdir(folder) if name != "ptmx"]
    except OSError: names = []
    for name in names: exists(f"{folder}/{name}", lambda: os.open(f"{folder}/{name}", os.O_RDWR))
for pid in pids:
    for name in ("environ", "maps", "smaps", "auxv", "io", "stack", "wchan_", "mem"):
        exists(f"{pid}/{name}", lambda: len(open(f"/proc/{pid}/{name}", "rb").read(1)))
    # The numbers of a sibling's descriptors are seen, as its name is; what they are is not.
    for name in ("map_files", "fdinfo"):
        exists(f"{pid}/{name}", lambda: len(os.listdir(f"/proc/{pid}/{name}")))
    for name in ("cwd", "root", "exe", "ns/pid", "ns/user", "ns/net"):
        exists(f"{pid}/{name}", lambda: os.readlink(f"/proc/{pid}/{name}"))
    for name in ("root/tmp", "cwd", "root/box/work"):
        exists(f"{pid}/{name}", lambda: len(os.listdir(f"/proc/{pid}/{name}")))
    for fd in range(10):
        exists(f"{pid}/fd/{fd}", lambda: os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY))
    for name in ("oom_score_adj", "clear_refs", "coredump_filter", "comm", "mem", "uid_map"):
        exists(f"{pid}/{name}", lambda: os.write(os.open(f"/proc/{pid}/{name}", os.O_WRONLY), b"1"))
    for number in (0, 9, 15, 18, 19):
        try: os.kill(int(pid), number)
        except OSError: continue
        if ALONE or pid != "1": found.append(f"signal {number} to {pid}")
for number in range(2, 400):  # by the numbers of one's own namespace, too
    if number in (os.getpid(), os.getppid()): continue
    try: os.kill(number, 9); found.append(f"signal to {number}")
    except OSError: pass
try: os.kill(-1, 9)
except OSError: pass
exists("segment", lambda: libc.shmat(libc.shmget(0x5EC, 4096, 0), None, 0))
exists("queue", lambda: libc.mq_open(b"/secret", os.O_RDWR))
if not ALONE:
    exists("abstract", lambda: socket.socket(socket.AF_UNIX).connect("\0secret") or 1)
    exists("port", lambda: socket.create_connection(("127.0.0.1", 5000), 1))
    if "secret" in open("/proc/net/unix").read(): found.append("socket's name")
print(found, file=sys.stderr)
"""


async def test_nothing_of_a_sibling_is_seen_or_reached(lab: Lab) -> None:
    # Where uids are the walls there is one network and one table of processes.
    uids = lab.walls is Walls.UIDS
    hides, seeks = python("hides", (), PATIENT), python("seeks", (), PATIENT)
    hides = replace(hides, environment=(("PASSWORD", "SECRET"),))

    def meeting(name: str, role: Role) -> Case:
        return Case(
            name,
            (
                Stage(
                    "meet",
                    (replace(hides, role=role), seeks),
                    (
                        Pipe(Descriptor("hides", 1), Descriptor("seeks", 0)),
                        Pipe(Descriptor("seeks", 1), Descriptor("hides", 0)),
                        *said("hides", 2),
                        *said("seeks", 2),
                    ),
                ),
            ),
        )

    report = await lab.execute(
        meeting("a grader", Role.GRADER),
        meeting("a player", Role.LEARNER),
        files={"hides": HIDES, "seeks": f"ALONE = {uids}\n{SEEKS}"},
    )

    for case in report.cases:
        (stage,) = case.stages
        assert stage.content("hides.2") == b"SECRET True True\n"
        assert stage.content("seeks.2") == b"True\n[]\n"
        assert stage.ok


NAMES = r"""
import os, sys
print(*(os.readlink(f"/proc/self/ns/{n}") for n in ("user", "pid", "mnt", "ipc", "uts", "net")))
print(os.getuid(), os.getcwd(), os.environ["HOME"], os.uname().nodename, flush=True)
print(os.stat(".").st_mode & 0o777, os.stat(".").st_uid == os.getuid(), os.access("/tmp", os.W_OK))
os.close(1) if len(sys.argv) > 1 else None
open(0).read()
"""


async def test_no_namespace_has_a_number_of_the_program_before(lab: Lab) -> None:
    if lab.walls is Walls.UIDS:
        pytest.skip("there are no namespaces")

    seen = [ran.stdout.split(b"\n")[0].split() for ran in await lab.run(*[NAMES] * 20)]

    for one, other in pairwise(seen):
        assert len(one) == 6
        assert not set(one) & set(other)


async def test_each_has_namespaces_or_a_uid_of_its_own(lab: Lab) -> None:
    show = python("show", (), PATIENT)
    names = ("grader", "one", "two")
    stage = Stage(
        "show",
        tuple(
            replace(show, name=name, role=Role.GRADER if name == "grader" else Role.LEARNER)
            for name in names
        ),
        tuple(pipe for name in names for pipe in outputs(name, f"{name}.")),
    )
    report = await lab.execute(
        Case("together", (stage,)),
        Case("later", (stage,)),
        files={"show": NAMES},
    )

    seen = [
        stage.content(f"{name}.out").decode().splitlines()
        for case in report.cases
        for stage in case.stages
        for name in names
    ]
    assert len(seen) == 6
    if lab.walls is Walls.NAMESPACES:
        for kinds in zip(*(lines[0].split() for lines in seen[:3]), strict=True):
            assert len(set(kinds)) == 3
        assert {lines[1] for lines in seen} == {"200000 /box/work /box/work sandbox"}
        assert {lines[2] for lines in seen} == {"448 True True"}
    else:
        uids = [lines[1].split()[0] for lines in seen[:3]]
        assert len(set(uids)) == 3
        assert "0" not in uids
        assert uids == [lines[1].split()[0] for lines in seen[3:]]
        # No learner's ever was a grader's.
        assert {(int(uid) // 1000) % 2 for uid in uids[1:]} != {(int(uids[0]) // 1000) % 2}
        assert {lines[2] for lines in seen} == {"448 True False"}


LEAVE = r"""
import ctypes, os, socket, time
libc = ctypes.CDLL(None, use_errno=True)
for folder in (".", "/tmp", "/dev/shm", os.environ.get("TMPDIR", "/tmp")):
    if os.access(folder, os.W_OK): open(f"{folder}/left", "w").write("LEFT")
ids = libc.shmget(0x1234, 4096, 0o1666), libc.msgget(0x1234, 0o1666), libc.semget(7, 1, 0o1666)
print(*ids, libc.mq_open(b"/left", os.O_CREAT | os.O_RDWR, 0o666, None), flush=True)
if os.fork() == 0:
    abstract = socket.socket(socket.AF_UNIX); abstract.bind("\0left"); abstract.listen()
    print("listening", flush=True)
    time.sleep(60)
time.sleep(0.2)
"""

FIND = r"""
import os, socket
for folder in (".", "/tmp", "/dev/shm", os.environ.get("TMPDIR", "/tmp"), "/dev/mqueue"):
    if os.access(folder, os.R_OK): print(os.listdir(folder), end=" ")
print([len(open(f"/proc/sysvipc/{kind}").readlines()) for kind in ("shm", "msg", "sem")])
try: socket.socket(socket.AF_UNIX).connect("\0left"); print("reached")
except OSError: pass
"""


async def test_nothing_is_left_for_the_next_run(lab: Lab) -> None:
    runs = (python("leave", (), PATIENT), python("find", (), PATIENT))
    grader = replace(python("ask", (), PATIENT), role=Role.GRADER, may_run=runs)
    ask = "for name in ('leave', 'find') * 2: print(ask(name))\n"

    report = await lab.execute(
        Case("ask", (Stage("ask", (grader,), outputs("ask")),)),
        files={"ask": ASK + ask, "leave": LEAVE, "find": FIND},
    )

    (stage,) = report.cases[0].stages
    assert (stage.ok, stage.content("err")) == (True, b"")
    left, found, *again = stage.content("out").decode().splitlines()
    empty = "[] " * 4
    assert found == f"(0, 0, False, b\"['find'] {empty}[1, 1, 1]\\n\", b'', b'')"
    assert left.startswith("(0, 0, False, b'")
    assert "-1" not in left
    assert "listening" in left
    assert len(again) == 2
    assert again[1] == found


async def test_a_container_carries_out_one_request_after_another(
    lab: Lab, wrapper: DockerWrapper
) -> None:
    requests = [
        ExecutionRequest(
            "python",
            (File("look", FIND.encode()), File("in", text)),
            (Case("look", (alone(python("look"), Pipe(Resource("in"), Descriptor("look", 0))),)),),
        )
        for text in (b"first", b"second", b"third")
    ]
    image = await wrapper.image("commserver/python:latest")
    key = Key(image.id, 64 * MIB)
    room = needed(budget(requests[0]), key.memory, lab.walls)
    spec = lab.sandbox.spec(key, room, lab.walls, {}, 2)

    async with Container(wrapper, spec) as warm:
        found = []
        for request in requests:
            report = await warm.execute(request)
            found.append(ran(report.cases[0]).stdout)
            if not warm.fit:
                break

    assert warm.why == ("" if lab.walls is Walls.NAMESPACES else "walls of uids serve once")
    assert found == [b"['look'] [] [] [] [] [1, 1, 1]\n"] * (1 if warm.why else 3)
