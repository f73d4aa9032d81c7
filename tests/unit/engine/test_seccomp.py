"""Properties of the committed filter, whatever it was derived from."""

import json
from errno import errorcode
from typing import Any

import pytest

from commserver.engine import seccomp
from tests.hostile.syscalls import (
    ALLOWED,
    EPERM,
    NAMES,
    Call,
    by_argument,
    differences,
    plain,
)

PROFILE: dict[str, Any] = json.loads(seccomp.profile(namespaces=False))
RULES: list[dict[str, Any]] = PROFILE["syscalls"]


def rules_for(name: str) -> list[dict[str, Any]]:
    """Every rule that speaks of a call."""
    return [rule for rule in RULES if name in rule["names"]]


def test_what_is_not_named_is_denied_and_the_program_goes_on() -> None:
    assert PROFILE["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {rule["action"] for rule in RULES} == {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"}


def met(condition: dict[str, Any], argument: int) -> bool:
    """Whether a first argument, with zeros after it, is one that a rule is for."""
    argument = argument if condition["index"] == 0 else 0
    if condition["op"] == "SCMP_CMP_MASKED_EQ":
        return bool(argument & condition["value"] == condition["valueTwo"])
    assert condition["op"] == "SCMP_CMP_EQ"
    return bool(argument == condition["value"])


def answer(rules: list[dict[str, Any]], call: Call) -> str:
    """What a filter makes of a call."""
    for rule in rules:
        if NAMES.get(call.number) in rule["names"] and all(
            met(condition, call.argument) for condition in rule.get("args", ())
        ):
            return ALLOWED if rule["action"] == "SCMP_ACT_ALLOW" else errorcode[rule["errnoRet"]]
    return EPERM


@pytest.mark.parametrize("namespaces", [False, True])
def test_each_call_of_x86_64_gets_its_answer(namespaces: bool) -> None:
    """As the engine's filter gives it: the hostile suite asks that one the same."""
    rules = json.loads(seccomp.profile(namespaces=namespaces))["syscalls"]
    calls = {**plain(namespaces=namespaces), **by_argument(namespaces=namespaces)}

    assert differences(calls, [answer(rules, call) for call in calls]) == []


@pytest.mark.parametrize("name", ["ipc", "socketcall", "stime", "swapcontext", "umount"])
def test_what_only_other_machines_have_is_forbidden_as_well(name: str) -> None:
    assert rules_for(name) == []


def test_sockets_are_of_few_families_and_protocols_with_one_rule_each() -> None:
    """Two conditions on one argument in a rule would let pass what meets either."""

    def conditions(name: str) -> list[dict[int, int]]:
        rules = [rule["args"] for rule in rules_for(name)]
        assert {argument["op"] for rule in rules for argument in rule} == {"SCMP_CMP_EQ"}
        return [{argument["index"]: argument["value"] for argument in rule} for rule in rules]

    assert conditions("socketpair") == [{0: 1}]
    assert conditions("socket") == [
        {0: 1},
        *({0: family, 2: protocol} for family in (2, 10) for protocol in (0, 6, 17)),
    ]


def test_clone_makes_no_namespace_and_clone3_is_not_there() -> None:
    (clone,) = rules_for("clone")
    (clone3,) = rules_for("clone3")

    assert clone["args"] == [
        {"index": 0, "value": 0x7E020000, "op": "SCMP_CMP_MASKED_EQ", "valueTwo": 0}
    ]
    assert (clone3["action"], clone3["errnoRet"]) == ("SCMP_ACT_ERRNO", 38)


def test_no_rule_has_two_conditions_on_one_argument_or_depends_on_the_engine() -> None:
    for rule in RULES:
        assert set(rule) <= {"names", "action", "args", "errnoRet"}
        indices = [argument["index"] for argument in rule.get("args", [])]
        assert len(indices) == len(set(indices))


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
