"""Digests that tell whether a finished run is the run that would be made now."""

import ast
import functools
import hashlib
import json
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..data import inputs
from ..plan.sections import RunPlan
from ..profiling.machine import device_name

_PACKAGE = Path(__file__).parents[1]
# These arrange runs, keep them, read them back and run their models elsewhere; no figure of a run depends on them.
_NOT_IN_RUNS = ("comparison/", "deployment/", "launching/", "tracking/", "command_line.py")
_ONE_TREE_AT_A_TIME = threading.Lock()
_LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "scikit-learn")


def of_plan(plan: RunPlan, source_run: str | None = None, device: str | None = None) -> str:
    """A digest of everything that determines a run: plan, code, libraries, device (here), the run it starts from.

    The plan's checkpoint and corpus count by their contents, as far as they are on this machine.
    """
    content = {
        "plan": plan.model_dump(mode="json"),
        "inputs": inputs.revisions(plan),
        "code": of_code(),
        "libraries": libraries(),
        "device": device or device_name(),
        "source_run": source_run,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def of_configuration(plan: RunPlan) -> str:
    """A digest of what is trained, whatever its seed and however it is measured: runs that share it are repetitions."""
    content = _of_any_seed(plan.model_dump(mode="json"))
    if revisions := inputs.revisions(plan):
        content["inputs"] = revisions
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _of_any_seed(plan: dict[str, Any]) -> dict[str, Any]:
    """A plan, and all that it builds on, without seed and profiling."""
    kept = {key: value for key, value in plan.items() if key not in ("seed", "profiling")}
    return kept | {"builds_on": [_of_any_seed(each) for each in plan["builds_on"]]}


def libraries() -> dict[str, str]:
    """Versions of the libraries that a run's figures depend on, and of Python, which also spells the code's digest."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"python": python, **{name: version(name) for name in _LIBRARIES}}


@functools.cache
def of_code() -> str:
    """A digest of the code that a run's figures depend on: of what executes, without comments and docstrings."""
    # Python 3.11 cannot build syntax trees in two threads at once: "AST constructor recursion depth mismatch".
    with _ONE_TREE_AT_A_TIME:
        return _of_package(_PACKAGE)


def _of_package(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        if not name.startswith(_NOT_IN_RUNS):
            digest.update(f"{name}\0{_executed(path.read_text())}\0".encode())
    return digest.hexdigest()[:16]


def _executed(source: str) -> str:
    """The syntax tree without docstrings and positions, as text."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = node.body[ast.get_docstring(node) is not None :]
    return ast.dump(tree)
