"""Programs that use as much as they are told, and know how much that is."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from commserver.core.execution import (
    MIB,
    Artifact,
    Case,
    ExecutionRequest,
    File,
    Limits,
    Pipe,
    Placement,
    Process,
    Stage,
    WorkFile,
)
from commserver.engine.sandbox import DockerSandbox

BURN_C = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#define IS(name) if (!strcmp(shape, name))

static int told[2];

static double used(int who) {
    struct rusage u;
    getrusage(who, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double own(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void *burn(void *until) {
    do for (volatile int i = 0; i < 10000; i++); while (own() < *(double *)until);
    return 0;
}

static void child(double seconds) {
    burn(&seconds);
    seconds = own();
    write(told[1], &seconds, sizeof seconds);
    _exit(0);
}

int main(int argc, char **argv) {
    char *shape = argv[1], piece[200];
    double seconds = atof(argv[2]), part, total = 0;
    pthread_t threads[4];
    pipe(told);
    IS("thread") burn(&seconds);
    IS("threads") {
        for (int i = 0; i < 4; i++) pthread_create(threads + i, 0, burn, &seconds);
        for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
    }
    IS("waited") {
        for (int i = 0; i < 4; i++) if (!fork()) child(seconds / 4);
        while (wait(0) > 0);
    }
    IS("unwaited") for (int i = 0; i < 4; i++) if (!fork()) child(seconds / 4);
    IS("orphan") {
        if (!fork()) { if (!fork()) child(seconds); _exit(0); }
        wait(0);
    }
    IS("many") for (int i = 0; i < seconds / 0.005; i++) { if (!fork()) child(0.005); wait(0); }
    IS("talker") while (own() < seconds) write(2, piece, sizeof piece);
    close(told[1]);
    while (read(told[0], &part, sizeof part) == sizeof part) total += part;
    IS("waited") total = used(RUSAGE_CHILDREN);
    IS("many") total = used(RUSAGE_CHILDREN);
    printf("%f\n", total + own());
}
"""
"""Takes a shape and seconds of cpu time; prints those that it and all that it started used."""

BURN_PYTHON = """
import os, resource, struct, sys, threading, time

shape, seconds = sys.argv[1], float(sys.argv[2])
hears, tells = os.pipe()

def burn(until):
    while time.process_time() < until:
        for _ in range(1000): pass

def child(until):
    burn(until)
    os.write(tells, struct.pack("d", time.process_time()))
    os._exit(0)

match shape:
    case "thread":
        burn(seconds)
    case "threads":
        threads = [threading.Thread(target=burn, args=[seconds]) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
    case "waited" | "unwaited":
        for _ in range(4):
            if os.fork() == 0: child(seconds / 4)
        if shape == "waited":
            for _ in range(4): os.wait()
    case "orphan":
        if os.fork() == 0:
            if os.fork() == 0: child(seconds)
            os._exit(0)
        os.wait()
    case "many":
        for _ in range(int(seconds / 0.005)):
            if os.fork() == 0: child(0.005)
            os.wait()
os.close(tells)
total = 0.0
while part := os.read(hears, 8): total += struct.unpack("d", part)[0]
if shape in ("waited", "many"):
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = children.ru_utime + children.ru_stime
print(total + time.process_time())
"""
"""The same."""

TAKE_C = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#define IS(name) if (!strcmp(shape, name))

static size_t size;

static void hold(void) { usleep(50000); }

static char *map(size_t bytes, int access, int flags) {
    return mmap(0, bytes, access, MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
}

static char *touch(size_t bytes) {
    return memset(map(bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE), 1, bytes);
}

static void *quarter(void *_) { touch(size / 4); hold(); return 0; }

static void fill(int fd) {
    static char piece[1 << 16];
    for (size_t left = size; left; left -= sizeof piece)
        if (write(fd, piece, sizeof piece) != sizeof piece) exit(1);
    hold();
}

int main(int argc, char **argv) {
    char *shape = argv[1], *area, c;
    int met[2], go[2];
    pthread_t threads[4];
    size = atol(argv[2]) << 20;
    IS("held") { touch(size); hold(); }
    IS("stays") { touch(size); pause(); }
    IS("gone") { touch(size); _exit(0); }
    IS("freed") { munmap(touch(size), size); hold(); }
    IS("large-pages") {
        area = map(size, PROT_READ | PROT_WRITE, MAP_PRIVATE);
        madvise(area, size, MADV_HUGEPAGE);
        memset(area, 1, size);
        hold();
    }
    IS("child") { if (!fork()) { touch(size); hold(); _exit(0); } wait(0); }
    IS("gone-child") { if (!fork()) { touch(size); _exit(0); } wait(0); }
    IS("children") {
        pipe(met);
        pipe(go);
        for (int i = 0; i < 2; i++) if (!fork()) {
            close(go[1]);
            touch(size / 2);
            write(met[1], "x", 1);
            read(go[0], &c, 1);
            _exit(0);
        }
        read(met[0], &c, 1);
        read(met[0], &c, 1);
        hold();
    }
    IS("threads") {
        for (int i = 0; i < 4; i++) pthread_create(threads + i, 0, quarter, 0);
        for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
    }
    IS("shared") {
        area = map(size, PROT_READ | PROT_WRITE, MAP_SHARED);
        memset(area, 1, size);
        if (!fork()) { memset(area, 2, size); hold(); _exit(0); }
        wait(0);
    }
    IS("inherited") { touch(size); if (!fork()) { hold(); _exit(0); } wait(0); }
    IS("file") fill(open(argv[3], O_CREAT | O_WRONLY, 0600));
    IS("memfd") fill(memfd_create("x", 0));
    IS("untouched") { map(8L << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE); touch(size); hold(); }
    IS("reserved") {
        area = map(1 << 30, PROT_NONE, MAP_PRIVATE);
        mprotect(area, size, PROT_READ | PROT_WRITE);
        memset(area, 1, size);
        hold();
    }
}
"""
"""Takes a shape and MiB of memory, and perhaps a path; it has next to nothing besides."""


async def compiled(sandbox: DockerSandbox, source: str) -> bytes:
    """A program in C as a file that needs no other, and so runs in any image."""
    gcc = Process(
        "gcc",
        ("gcc", "-O1", "-w", "-static", "-pthread", "-o", "main", "main.c"),
        Limits(cpu=10, real=30, memory=256 * MIB),
        (Placement("main.c", "main.c"),),
    )
    stage = Stage("compile", (gcc,), (Pipe(WorkFile("gcc", "main"), Artifact("main")),))
    request = ExecutionRequest("c", (File("main.c", source.encode()),), (Case("all", (stage,)),))
    report = await sandbox.execute(request, run="compile", slot=1)
    return report.cases[0].stages[0].content("main")


@contextlib.asynccontextmanager
async def neighbours(sandbox: DockerSandbox, burner: bytes) -> AsyncIterator[None]:
    """Keep all cores busy with what other slots of the sandbox execute, and cancel that."""
    at = (Placement("burn", "burn"),)
    limits = Limits(cpu=120.0, real=120.0)
    first, busy = (
        Case(
            seconds, (Stage("run", (Process("burn", ("./burn", "threads", seconds), limits, at),)),)
        )
        for seconds in ("0", "100")
    )
    request = ExecutionRequest("python", (File("burn", burner),), (first, busy))

    async def burn(slot: int, begun: asyncio.Event) -> None:
        def on_progress(ended: int, total: int) -> None:
            if ended == 1:
                begun.set()

        await sandbox.execute(request, run="busy", slot=slot, on_progress=on_progress)

    async with asyncio.TaskGroup() as group:
        tasks = []
        for slot in range(10, 10 + min(os.cpu_count() or 1, 4)):
            begun = asyncio.Event()
            tasks.append(group.create_task(burn(slot, begun)))
            await begun.wait()
        yield
        for task in tasks:
            assert not task.done()
            task.cancel()
