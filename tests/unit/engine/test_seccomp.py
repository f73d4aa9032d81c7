"""Properties of the committed filter, whatever it was derived from."""

import json
from typing import Any

import pytest

from commserver.engine import seccomp

PROFILE: dict[str, Any] = json.loads(seccomp.profile(namespaces=False))
RULES: list[dict[str, Any]] = PROFILE["syscalls"]

FORBIDDEN = [
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "userfaultfd",
    "bpf",
    "perf_event_open",
    "keyctl",
    "add_key",
    "request_key",
    "unshare",
    "setns",
    "mount",
    "umount",
    "umount2",
    "pivot_root",
    "chroot",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "kcmp",
    "pidfd_getfd",
    "process_madvise",
    "open_by_handle_at",
    "name_to_handle_at",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "move_mount",
    "open_tree",
    "mount_setattr",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "kexec_file_load",
    "reboot",
    "swapon",
    "swapoff",
    "acct",
    "quotactl",
    "syslog",
    "settimeofday",
    "clock_settime",
    "sethostname",
    "setdomainname",
    "iopl",
    "ioperm",
    "modify_ldt",
    "vhangup",
    "lookup_dcookie",
    "nfsservctl",
    "fanotify_init",
    "memfd_secret",
    "io_setup",
    "io_submit",
    "socketcall",
]


def rules_for(name: str) -> list[dict[str, Any]]:
    """Every rule that speaks of a call."""
    return [rule for rule in RULES if name in rule["names"]]


def test_what_is_not_named_is_denied_and_the_program_goes_on() -> None:
    assert PROFILE["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {rule["action"] for rule in RULES} == {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_forbidden_calls_are_named_nowhere(name: str) -> None:
    assert rules_for(name) == []


@pytest.mark.parametrize(("name", "families"), [("socket", [1, 2, 10, 16]), ("socketpair", [1])])
def test_sockets_are_of_few_families_with_one_rule_each(name: str, families: list[int]) -> None:
    """Two conditions in one rule would let pass what meets either."""
    conditions = [rule["args"] for rule in rules_for(name)]

    assert conditions == [
        [{"index": 0, "value": family, "op": "SCMP_CMP_EQ"}] for family in families
    ]


def test_clone_makes_no_namespace_and_clone3_is_not_there() -> None:
    (clone,) = rules_for("clone")
    (clone3,) = rules_for("clone3")

    assert clone["args"] == [
        {"index": 0, "value": 0x7E020000, "op": "SCMP_CMP_MASKED_EQ", "valueTwo": 0}
    ]
    assert (clone3["action"], clone3["errnoRet"]) == ("SCMP_ACT_ERRNO", 38)


def test_no_rule_has_two_conditions_or_depends_on_the_engine() -> None:
    for rule in RULES:
        assert set(rule) <= {"names", "action", "args", "errnoRet"}
        assert len(rule.get("args", [])) <= 1


def test_only_the_machines_own_calls_are_known() -> None:
    assert "architectures" not in PROFILE
    assert [entry["subArchitectures"] for entry in PROFILE["archMap"]] == [[], []]


def test_what_programs_need_is_allowed() -> None:
    (plain, *_) = RULES

    assert "args" not in plain
    assert {"read", "write", "execve", "mmap", "futex", "wait4", "pidfd_open", "setresuid"} <= set(
        plain["names"]
    )


def test_it_says_where_it_comes_from() -> None:
    assert "Apache License 2.0" in PROFILE["origin"]


def test_a_runner_that_makes_namespaces_may_call_what_that_takes_and_nothing_else() -> None:
    def unconditional(profile: dict[str, Any]) -> set[str]:
        rules = profile["syscalls"]
        return {name for rule in rules if "args" not in rule for name in rule["names"]}

    nested = json.loads(seccomp.profile(namespaces=True))

    assert unconditional(nested) - unconditional(PROFILE) == {
        *("clone", "mount", "pivot_root", "sethostname", "umount2", "unshare")
    }
    conditional = [rule for rule in nested["syscalls"] if "args" in rule]
    assert conditional == [rule for rule in RULES if "args" in rule and rule["names"] != ["clone"]]
    assert "clone3" not in {
        name
        for rule in nested["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW"
        for name in rule["names"]
    }


def test_what_the_runner_itself_needs_is_allowed() -> None:
    (plain, *_) = RULES

    assert {"capset", "close_range", "memfd_create", "pidfd_open", "prctl", "seccomp"} <= set(
        plain["names"]
    )


def test_conditional_rules_of_the_default_are_left_out() -> None:
    default = {
        "syscalls": [
            {"names": ["read", "bpf", "socket"], "action": "SCMP_ACT_ALLOW", "args": []},
            {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["X"]}},
            {
                "names": ["arch_prctl"],
                "action": "SCMP_ACT_ALLOW",
                "includes": {"arches": ["amd64"]},
            },
            {"names": ["s390"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}},
            {"names": ["later"], "action": "SCMP_ACT_ERRNO"},
            {
                "names": ["personality"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}],
            },
        ]
    }

    plain, personality, *_ = seccomp.derive(default)["syscalls"]

    assert plain["names"] == ["arch_prctl", "bpf", "read"]
    assert personality["args"] == [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]
