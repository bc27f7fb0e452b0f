"""The import direction of ARCHITECTURE.md, kept by a test: data flows one way, and so do imports."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2] / "chaos"
BASE = {"histogram", "model", "errors", "config", "certs", "processes", "watchdog", "statistics", "ledger", "healing"}
EDGES = {"environments", "targets", "faults", "traffic"}
LAYERS = {
    "model": set(),
    "errors": set(),
    "statistics": {"model"},
    "histogram": set(),
    "retries": {"model"},
    "sequential": set(),
    "comparison": {"model", "statistics"},
    "hours": {"statistics"},
    "watchdog": set(),
    "defect": set(),
    "processes": {"errors", "watchdog"},
    "healing": set(),
    "ledger": {"errors", "watchdog", "healing"},
    "config": {"model", "errors"},
    "certs": {"model", "errors"},
    "documents": {"errors"},
    "checks": {"documents", "histogram", "model", "errors", "statistics", "retries", "sequential", "comparison", "hours"},
    "gates": {"model", "errors", "statistics"},
    "evidence": {"ledger", "histogram", "hours", "model", "errors", "statistics", "retries", "gates", "checks"},
    "export": {"histogram", "model", "errors", "statistics", "gates", "checks", "evidence"},
    "verify": set(),
    **dict.fromkeys(EDGES, BASE),
    "paths": BASE | {"faults"},
    "rig": BASE | EDGES | {"checks", "paths"},
    "cases": BASE | EDGES,
    "experiment": BASE | EDGES | {"documents", "checks", "rig", "paths", "cases"},
    "shrinking": {"faults"},
    "matrix": BASE | EDGES | {"checks"},
    "rollout": BASE | EDGES | {"checks", "rig", "paths", "cases", "experiment", "gates"},
}
TOP = {
    "cli",
    "commands",
    "heal",
    "plan",
    "runner",
    "campaign",
    "attestation",
    "collector",
    "session",
    "soak",
    "pytest_plugin",
    "about",
    "doctor",
    "pack",
    "recheck",
    "terminal",
    "__main__",
}


def _module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


def _imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module] if node.module != "chaos" else [f"chaos.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("chaos."):
                yield name.split(".")[1], node.lineno


def test_imports_go_one_way():
    wrong = []
    for path in ROOT.rglob("*.py"):
        module = _module(path)
        if module in TOP or "reference" in path.parts:
            continue
        allowed = LAYERS.get(module)
        for name, line in _imports(ast.parse(path.read_text(encoding="utf-8"))):
            if name == "__version__" or name == module:
                continue
            if allowed is None or name not in allowed:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong


def test_every_module_has_a_place():
    known = set(LAYERS) | TOP | {"__init__"}
    assert {_module(path) for path in ROOT.rglob("*.py")} <= known


def test_the_reference_service_knows_nothing_of_the_suite():
    """But for its errors about settings, which look like ours."""
    reference = ROOT / "targets" / "reference"
    foreign = [
        f"{path.name}:{line}"
        for path in reference.rglob("*.py")
        for name, line in _imports(ast.parse(path.read_text(encoding="utf-8")))
        if name not in {"targets", "errors"}
    ]
    assert not foreign
