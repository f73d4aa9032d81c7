"""The system calls that a container may make: Docker's default filter, made stricter and leaner.

`seccomp.json` beside this file is written by ``python -m commserver.engine.seccomp PROFILE``, where
PROFILE is Docker's own default (Debian's golang-github-docker-docker-dev has it as
profiles/seccomp/default.json). It is committed, because the defaults built into engines differ.

Docker's profile decides by the container's capabilities; ours have none that matter, so those rules
go. Without the second and third architecture of each machine the filter is also compiled in a
third of the time, and foreign system calls end the caller.
"""

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

ORIGIN = (
    "Derived from the default seccomp profile of Docker Engine 20.10 (profiles/seccomp/default.json"
    " in github.com/moby/moby), Copyright The Moby Authors, Apache License 2.0; changed by"
    " commserver/engine/seccomp.py"
)

ARCHITECTURES = ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")

# What Docker allows and we do not: the usual ways to escape, and below them what counts against
# limits that the whole host shares (asynchronous I/O), hides memory from the cgroup, or lets one
# empty the host's cache of the image.
FORBIDDEN = frozenset(
    {
        "fanotify_mark",
        "io_uring_enter",
        "io_uring_register",
        "io_uring_setup",
        "ipc",
        "modify_ldt",
        "process_mrelease",
        "ptrace",
        "socketcall",
        #
        "fadvise64",
        "fadvise64_64",
        "io_cancel",
        "io_destroy",
        "io_getevents",
        "io_pgetevents",
        "io_pgetevents_time64",
        "io_setup",
        "io_submit",
        "memfd_secret",
    }
)

# The families that a program may open, for `network: none` leaves it a loopback at most: not
# AF_NETLINK, whose queues no cgroup counts. One rule each: two conditions on one argument would be
# ORed, and a range ("above 40") lets 2³² + 38 pass, of which the kernel reads only the lower half:
# AF_ALG. Of what goes over a loopback only the protocols whose queues can be seen.
AF_UNIX = 1
INTERNET = {"AF_INET": 2, "AF_INET6": 10}
PROTOCOLS = {"any": 0, "IPPROTO_TCP": 6, "IPPROTO_UDP": 17}

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
CLONE_NEW = 0x7E020000
ENOSYS = 38

# What makes namespaces and furnishes them, beside `clone` with the flags above.
NAMESPACES = ("mount", "pivot_root", "sethostname", "umount2", "unshare")


def allow(*names: str, **more: Any) -> dict[str, Any]:
    """A rule that lets system calls pass."""
    return {"names": sorted(names), "action": "SCMP_ACT_ALLOW", **more}


def argument(index: int, value: int, op: str = "SCMP_CMP_EQ", **more: Any) -> dict[str, Any]:
    """A condition on an argument."""
    return {"index": index, "value": value, "op": op, **more}


def derive(default: dict[str, Any]) -> dict[str, Any]:
    """Our filter out of Docker's default one."""
    names: set[str] = set()
    rules: list[dict[str, Any]] = []
    for rule in default["syscalls"]:
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        arches = set(includes.get("arches", ("amd64", "arm64")))
        if includes.get("caps") or excludes or not arches & {"amd64", "arm64"}:
            continue
        if rule["action"] != "SCMP_ACT_ALLOW":
            continue
        wanted = set(rule["names"]) - FORBIDDEN - {"socket", "socketpair"}
        if rule.get("args"):
            rules.append(allow(*wanted, args=rule["args"]))
        else:
            # A name that a machine does not have is skipped there: no need to tell them apart.
            names |= wanted
    rules.append(allow("clone", args=[argument(0, CLONE_NEW, "SCMP_CMP_MASKED_EQ", valueTwo=0)]))
    # glibc and the JVM fall back to clone, whose flags a filter can read.
    rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS})
    rules += [allow(name, args=[argument(0, AF_UNIX)]) for name in ("socket", "socketpair")]
    rules += [
        allow("socket", args=[argument(0, family), argument(2, protocol)])
        for family in INTERNET.values()
        for protocol in PROTOCOLS.values()
    ]
    return {
        "origin": ORIGIN,
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [{"architecture": name, "subArchitectures": []} for name in ARCHITECTURES],
        "syscalls": [allow(*names), *rules],
    }


@cache
def profile(*, namespaces: bool) -> str:
    """The filter as the engine's API takes it: JSON text.

    namespaces: for a container whose runner makes namespaces; it puts a filter of its own, without
    these calls, around each program that is not ours.
    """
    text = Path(__file__).with_name("seccomp.json").read_text(encoding="utf-8")
    committed = json.loads(text)
    if namespaces:
        rules = [rule for rule in committed["syscalls"] if rule["names"] != ["clone"]]
        committed["syscalls"] = [*rules, allow("clone", *NAMESPACES)]
    return json.dumps(committed, separators=(",", ":"))


def main() -> None:
    """Write `seccomp.json` anew."""
    derived = derive(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    text = json.dumps(derived, indent=1) + "\n"
    Path(__file__).with_name("seccomp.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
