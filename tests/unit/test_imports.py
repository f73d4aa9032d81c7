"""Who may import whom: the table of docs/architecture.md, enforced.

A rule names packages and what of ours they may import beside themselves; `config` may be imported
by any package for the type of its own section, `logs` by the entry points alone.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "commserver"

SHARED_GATEWAY = {
    f"gateways.{name}"
    for name in (
        "gateway",
        "interpreter",
        "framing",
        "reconnect",
        "wire",
        "proxies",
        "limits",
        "tls",
        "words",
        "doorkeeper",
        "listening",
    )
}
RULES: dict[str, set[str]] = {  # the longest name that fits counts
    "errors": set(),
    "logs": set(),
    "config": {"errors"},
    "core": {"errors"},
    "dao": {"core", "errors"},
    "engine": {"core", "errors"},
    "engine.runner": set(),
    "engine.discovery": set(),
    "graders": {"core", "errors"},
    "services": {"core", "dao", "engine", "graders", "errors"},
    "gateways": {"core", "services", "errors"} | SHARED_GATEWAY,
    "gateways.framing": {"errors"},
    "gateways.interpreter": {"errors"},
    "gateways.reconnect": set(),
    "gateways.tls": {"errors"},
    "gateways.words": {"core", "errors"},
    "gateways.gateway": set(),
    "gateways.proxies": {"errors"},
    "gateways.limits": set(),
    "gateways.listening": {"core"},
    "web": {"core", "services", "errors"} | SHARED_GATEWAY,
    "reference": set(),
    "app": {"*"},
    "operations": {"*"},
    "descriptors": {"gateways.listening"},
    "cli": {"*"},
    "commands": {"*"},
    "cluster": {"errors"},
    "trial": {"*"},
    "demo": {"*"},
}
SANS_IO = ("packets", "protocol")  # of each gateway: codec, framing, errors; no loop, no services
SANS_IO_MAY = {"gateways.framing", "gateways.wire", "gateways.words", "errors"}
ENTRY = {"cli", "commands", "trial", "demo"}  # those who may import app


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name and "__pycache__" not in parts:
            yield name, path


def imported(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, ours without the package's name and a dot before."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                submodule = ROOT.parent / Path(*str(node.module).split("."), f"{alias.name}.py")
                package = submodule.with_suffix("") / "__init__.py"
                deeper = submodule.exists() or package.exists()
                yield f"{node.module}.{alias.name}" if deeper else str(node.module)


def problems(name: str, imports: list[str]) -> Iterator[str]:
    rule = max((r for r in RULES if f"{name}.".startswith(f"{r}.")), key=len)
    ours = {one.removeprefix("commserver.") for one in imports if one.startswith("commserver.")}
    sans_io = name.startswith("gateways.") and name.rsplit(".", 1)[-1] in SANS_IO
    own = ".".join(name.split(".")[:2]) if name.startswith("gateways.") else rule.split(".")[0]
    if rule in ("engine.runner", "engine.discovery"):
        own = name
    may = SANS_IO_MAY if sans_io else RULES[rule] | ({"config"} if rule not in ("logs",) else set())
    for one in ours:
        if "*" in may or any(f"{one}.".startswith(f"{allowed}.") for allowed in (*may, own)):
            if one.split(".")[0] == "app" and name.split(".")[0] not in ENTRY:
                yield f"{name} imports app"
            continue
        yield f"{name} imports {one}"
    outside = {one.split(".")[0] for one in imports}
    if sans_io and "asyncio" in outside:
        yield f"{name} imports asyncio"
    if "docker" in outside and not name.startswith("engine."):
        yield f"{name} imports the Docker SDK"


def test_every_module_imports_only_what_its_room_may() -> None:
    found = [
        problem for name, path in modules() for problem in problems(name, list(imported(path)))
    ]

    assert not found


def test_every_module_has_a_rule_of_its_own_room() -> None:
    rooms = {name.split(".")[0] for name, _ in modules()}

    assert rooms <= {rule.split(".")[0] for rule in RULES}


@pytest.mark.parametrize(
    ("name", "imports", "problem"),
    [
        ("core.board", "commserver.dao.tables", "core.board imports dao.tables"),
        ("dao.codes", "commserver.services.x", "dao.codes imports services.x"),
        ("gateways.browser.x", "commserver.gateways.backend.y", "imports gateways.backend.y"),
        ("gateways.browser.x", "commserver.dao.y", "imports dao.y"),
        ("gateways.backend.packets", "asyncio", "imports asyncio"),
        ("gateways.backend.protocol", "commserver.services.x", "imports services.x"),
        ("services.x", "commserver.app", "services.x imports app"),
        ("services.x", "docker.errors", "imports the Docker SDK"),
        ("reference.backend", "commserver.errors", "imports errors"),
        ("engine.runner.runner", "commserver.errors", "imports errors"),
    ],
)
def test_the_table_forbids(name: str, imports: str, problem: str) -> None:
    found = list(problems(name, [imports]))

    assert len(found) == 1
    assert problem in found[0]
