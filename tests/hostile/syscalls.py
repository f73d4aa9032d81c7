"""What the filters must answer to each system call of x86_64, and a program that asks them.

Written by name from what the sandbox promises, and not from what it is made of: a filter that
becomes weaker, or stricter, differs from this.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

ALLOWED, EPERM, ENOSYS, SIGSYS = "allowed", "EPERM", "ENOSYS", "SIGSYS"

_FROM_0 = """
    read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction
    rt_sigprocmask rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select sched_yield
    mremap msync mincore madvise shmget shmat shmctl dup dup2 pause nanosleep getitimer alarm
    setitimer getpid sendfile socket connect accept sendto recvfrom sendmsg recvmsg shutdown bind
    listen getsockname getpeername socketpair setsockopt getsockopt clone fork vfork execve exit
    wait4 kill uname semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl flock fsync
    fdatasync truncate ftruncate getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink
    symlink readlink chmod fchmod chown fchown lchown umask gettimeofday getrlimit getrusage sysinfo
    times ptrace getuid syslog getgid setuid setgid geteuid getegid setpgid getppid getpgrp setsid
    setreuid setregid getgroups setgroups setresuid getresuid setresgid getresgid getpgid setfsuid
    setfsgid getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend
    sigaltstack utime mknod uselib personality ustat statfs fstatfs sysfs getpriority setpriority
    sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max
    sched_get_priority_min sched_rr_get_interval mlock munlock mlockall munlockall vhangup
    modify_ldt pivot_root _sysctl prctl arch_prctl adjtimex setrlimit chroot sync acct settimeofday
    mount umount2 swapon swapoff reboot sethostname setdomainname iopl ioperm create_module
    init_module delete_module get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg
    afs_syscall tuxcall security gettid readahead setxattr lsetxattr fsetxattr getxattr lgetxattr
    fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr tkill time futex
    sched_setaffinity sched_getaffinity set_thread_area io_setup io_destroy io_getevents io_submit
    io_cancel get_thread_area lookup_dcookie epoll_create epoll_ctl_old epoll_wait_old
    remap_file_pages getdents64 set_tid_address restart_syscall semtimedop fadvise64 timer_create
    timer_settime timer_gettime timer_getoverrun timer_delete clock_settime clock_gettime
    clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl tgkill utimes vserver mbind
    set_mempolicy get_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify
    mq_getsetattr kexec_load waitid add_key request_key keyctl ioprio_set ioprio_get inotify_init
    inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat mknodat fchownat futimesat
    newfstatat unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll
    unshare set_robust_list get_robust_list splice tee sync_file_range vmsplice move_pages utimensat
    epoll_pwait signalfd timerfd_create eventfd fallocate timerfd_settime timerfd_gettime accept4
    signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo
    perf_event_open recvmmsg fanotify_init fanotify_mark prlimit64 name_to_handle_at
    open_by_handle_at clock_adjtime syncfs sendmmsg setns getcpu process_vm_readv process_vm_writev
    kcmp finit_module sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create
    kexec_file_load bpf execveat userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2
    pkey_mprotect pkey_alloc pkey_free statx io_pgetevents rseq uretprobe uprobe
"""
_FROM_424 = """
    pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen
    fsconfig fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2
    process_madvise epoll_pwait2 mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule
    landlock_restrict_self memfd_secret process_mrelease futex_waitv set_mempolicy_home_node
    cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount
    lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat
    removexattrat open_tree_attr file_getattr file_setattr
"""
NUMBERS = {
    name: number
    for first, names in ((0, _FROM_0), (424, _FROM_424))
    for number, name in enumerate(names.split(), first)
}
NAMES = {number: name for name, number in NUMBERS.items()}
UNKNOWN_TO = 600  # the last number that is asked about

# What Docker lets pass with a capability at most, by what it is for.
_PRIVILEGED = """
    acct bpf chroot clock_settime delete_module fanotify_init finit_module fsconfig fsmount fsopen
    fspick get_mempolicy init_module ioperm iopl kcmp kexec_file_load kexec_load lookup_dcookie
    mbind migrate_pages mount mount_setattr move_mount move_pages name_to_handle_at nfsservctl
    open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_madvise
    process_vm_readv process_vm_writev quotactl quotactl_fd reboot set_mempolicy setdomainname
    sethostname setns settimeofday swapoff swapon syslog umount2 unshare vhangup
"""
# What it never does: keys, which are the host's; relics; and what its profile does not know of.
_NEVER = """
    _sysctl add_key afs_syscall create_module get_kernel_syms getpmsg keyctl pkey_alloc pkey_free
    pkey_mprotect putpmsg query_module request_key security sysfs tuxcall uselib userfaultfd ustat
    vserver
"""
# What it does and we do not.
_STRICTER = """
    fadvise64 fanotify_mark io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit
    io_uring_enter io_uring_register io_uring_setup memfd_secret modify_ldt process_mrelease ptrace
"""
DENIED = frozenset(f"{_PRIVILEGED} {_NEVER} {_STRICTER}".split())

# Calls that came after the profile: an engine may say that there are none, so that programs do
# without them as on an older kernel.
LATER = frozenset(name for name, number in NUMBERS.items() if number >= 450)

# Calls by which the kernel's own probes return: Linux asks no filter, and they do nothing.
UNASKED = frozenset({"uprobe", "uretprobe"})

FOR_NAMESPACES = frozenset({"mount", "pivot_root", "sethostname", "umount2", "unshare"})
"""What the runner may do besides where it builds walls of namespaces; and `clone` with any flag."""

KILLED = frozenset(
    [
        "add_key",
        "bpf",
        "io_uring_enter",
        "io_uring_register",
        "io_uring_setup",
        "keyctl",
        "mount",
        "perf_event_open",
        "pivot_root",
        "process_vm_readv",
        "process_vm_writev",
        "ptrace",
        "request_key",
        "umount2",
        "userfaultfd",
    ]
)
"""What ends a program that is not ours."""

_MOUNTING = "fsconfig fsmount fsopen fspick mount_setattr move_mount open_tree"
DENIED_INSIDE = frozenset(f"{_MOUNTING} chroot setdomainname sethostname setns unshare".split())
"""What the filter around a program that is not ours denies even if the container's does not."""

CLONE_NEW = {
    "NEWNS": 1 << 17,
    "NEWCGROUP": 1 << 25,
    "NEWUTS": 1 << 26,
    "NEWIPC": 1 << 27,
    "NEWUSER": 1 << 28,
    "NEWPID": 1 << 29,
    "NEWNET": 1 << 30,
}
SIGCHLD = 17
THREAD = 0x3D0F00  # what pthread_create asks for
FAMILIES = {1: "unix", 2: "inet", 10: "inet6"}
PERSONALITIES = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)
NONSENSE = (0x80000000, 0xFFFFFFFF)  # as the number of a call: neither set of numbers has it
HIGH = 1 << 32  # above what the kernel reads of an argument that is an int


class Call(NamedTuple):
    """A system call with its first argument, made in one of the two ways there are."""

    number: int
    argument: int = 0
    gate: str = "syscall"


def plain(*, namespaces: bool) -> dict[Call, frozenset[str]]:
    """Each call, known or not, with the answers of the container's filter that are right."""
    wanted = {}
    for number in range(UNKNOWN_TO + 1):
        name = NAMES.get(number, "")
        if name in UNASKED:
            continue
        if name == "clone3":
            answers = {ENOSYS}
        elif not name or name in LATER:
            answers = {EPERM, ENOSYS}
        elif name in DENIED and not (namespaces and name in FOR_NAMESPACES):
            answers = {EPERM}
        elif name in ("socket", "socketpair"):
            answers = {EPERM}  # of family 0
        else:
            answers = {ALLOWED}
        wanted[Call(number)] = frozenset(answers)
    return wanted


def by_argument(*, namespaces: bool) -> dict[Call, frozenset[str]]:
    """Calls whose argument decides, with the answers that are right."""
    wanted = {}

    def want(name: str, argument: int, answer: str) -> None:
        wanted[Call(NUMBERS[name], argument)] = frozenset({answer})

    for family in (*range(64), 1 << 16, 0xFFFFFFFF):
        want("socket", family, ALLOWED if family in FAMILIES else EPERM)
        want("socketpair", family, ALLOWED if family == 1 else EPERM)
        want("socket", HIGH | family, EPERM)
        want("socketpair", HIGH | family, EPERM)
    for flags in (SIGCHLD, THREAD, HIGH | SIGCHLD):
        want("clone", flags, ALLOWED)
    for flag in CLONE_NEW.values():
        for more in (0, SIGCHLD, HIGH, THREAD):
            want("clone", flag | more, ALLOWED if namespaces else EPERM)
    for bit in range(32):
        value = 1 << bit
        want("personality", value, ALLOWED if value in PERSONALITIES else EPERM)
        want("personality", HIGH | value, EPERM)
    for value in PERSONALITIES:
        want("personality", value, ALLOWED)
    return wanted


X32 = 0x40000000


def foreign() -> dict[Call, frozenset[str]]:
    """Calls of other architectures: they end whoever makes one."""
    x32 = (X32, X32 + 39, X32 + 101, *range(X32 + 512, X32 + 548), 0x7FFFFFFF)
    calls = [*map(Call, x32), *(Call(number, 0, "i386") for number in (0, 20, 26, 384))]
    return dict.fromkeys(calls, frozenset({SIGSYS}))


def of_container(*, namespaces: bool) -> dict[Call, frozenset[str]]:
    """All calls with the right answers of a container's filter."""
    nonsense = dict.fromkeys(map(Call, NONSENSE), frozenset({EPERM, ENOSYS, SIGSYS}))
    return {
        **plain(namespaces=namespaces),
        **by_argument(namespaces=namespaces),
        **foreign(),
        **nonsense,
    }


def of_program() -> dict[Call, frozenset[str]]:
    """All calls with the right answers to a program that is not ours, whatever the container's."""
    return of_container(namespaces=False) | _ends()


def of_inner() -> dict[Call, frozenset[str]]:
    """All calls with the right answers of the filter around a program, were it the only one."""
    calls = [call for call in of_container(namespaces=False) if call.number != NUMBERS["clone"]]
    clones = {
        call: answers
        for call, answers in by_argument(namespaces=False).items()
        if call.number == NUMBERS["clone"]
    }
    denied = [Call(NUMBERS[name]) for name in DENIED_INSIDE]
    return {
        **dict.fromkeys(calls, frozenset({ALLOWED})),
        **clones,
        **dict.fromkeys(denied, frozenset({EPERM})),
        Call(NUMBERS["clone3"]): frozenset({ENOSYS}),
        **foreign(),
        **_ends(),
    }


def _ends() -> dict[Call, frozenset[str]]:
    """Calls that are the end of a program that is not ours."""
    numbers = [*(NUMBERS[name] for name in KILLED), *NONSENSE]
    return dict.fromkeys(map(Call, numbers), frozenset({SIGSYS}))


def asking(calls: Iterable[Call]) -> str:
    """A program in Python that prints the answer to each call, in a line of its own."""
    return f"CALLS = {[tuple(call) for call in calls]!r}\n{_ASKING}"


def differences(wanted: dict[Call, frozenset[str]], answers: Sequence[str]) -> list[str]:
    """What was answered otherwise than it must be."""
    return [
        f"{NAMES.get(call.number, call.number)}({call.argument:#x}) by {call.gate}: {answer}"
        for (call, right), answer in zip(wanted.items(), answers, strict=True)
        if answer not in right
    ]


# Nothing that is asked about is ever done. The program has a filter of its own, by which the kernel
# leaves each call with MARK in its last argument to the program, unless another filter gives an
# answer that is worse: an error or the end. So what comes through is what all others allow, and
# neither the kernel's own EPERM nor a call that blocks or exits can be mistaken for an answer.
_ASKING = r"""
import ctypes, errno, fcntl, mmap, os, select, signal, struct

MARK = 0x5EC0DE
LOAD, EQUAL, ANSWER = 0x20, 0x15, 0x06
LAST_ARGUMENT = 16 + 5 * 8
STEPS = (
    (LOAD, 0, 0, LAST_ARGUMENT), (EQUAL, 0, 1, MARK),
    (ANSWER, 0, 0, 0x7FC00000),  # to whoever listens
    (ANSWER, 0, 0, 0x7FFF0000),  # allow
)
PASSED = 4000  # an error that the kernel does not have

libc = ctypes.CDLL(None, use_errno=True)
word = ctypes.c_ulong

def syscall(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(word(number), *map(word, arguments))
    return ctypes.get_errno() if result == -1 else 0

code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in STEPS))
program = ctypes.create_string_buffer(struct.pack("@HP", len(STEPS), ctypes.addressof(code)))
libc.prctl(38, *map(word, (1, 0, 0, 0)))  # PR_SET_NO_NEW_PRIVS
listener = libc.syscall(word(317), word(1), word(8), program)  # seccomp: filter, new listener
assert listener >= 0, errno.errorcode[ctypes.get_errno()]

# push rbx; push rbp; mov eax, edi; mov ebx, esi; mov ebp, MARK; int 0x80; pop rbp; pop rbx; ret
MACHINE_CODE = bytes.fromhex("5355 89f8 89f3 bd") + struct.pack("<I", MARK) + bytes.fromhex(
    "cd80 5d5b c3"
)
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(MACHINE_CODE)
interrupt = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint, ctypes.c_uint)(
    ctypes.addressof(ctypes.c_char.from_buffer(page))
)

def make(number, argument, gate):
    if gate == "i386":
        return max(0, -interrupt(number, argument))
    return syscall(number, argument, 0, 0, 0, 0, MARK)

def say_passed():
    note = bytearray(80)
    fcntl.ioctl(listener, 0xC0502100, note)
    (cookie,) = struct.unpack_from("=Q", note)
    fcntl.ioctl(listener, 0xC0182101, struct.pack("=QqiI", cookie, 0, -PASSED, 0))

def name_of(error):
    return "allowed" if error == PASSED else errno.errorcode.get(error, "done")

def answers(calls):
    # In a child, as far as it gets: some calls are the end of it.
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        for call in calls:
            os.write(theirs, struct.pack("=I", make(*call)))
        os._exit(0)
    os.close(theirs)
    poll = select.poll()
    for fd in (ours, listener):
        poll.register(fd, select.POLLIN)
    given = []
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if ours not in ready:
            say_passed()
        elif answer := os.read(ours, 4):
            given.append(name_of(*struct.unpack("=I", answer)))
        else:
            break
    os.close(ours)
    status = os.waitpid(pid, 0)[1]
    return [*given, signal.Signals(os.WTERMSIG(status)).name] if status else given

given = []
while len(given) < len(CALLS):
    given += answers(CALLS[len(given):])
print(*given, sep="\n")
"""
