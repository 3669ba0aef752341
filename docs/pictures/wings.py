"""The map of the wings in docs/architecture.md: boxes are the layers of pyproject.toml, arrows are the real imports.

python docs/pictures/wings.py

A new wing needs its layer in pyproject.toml, a place below, and this script run again.
"""

import ast
import json
import re
import sys
import textwrap
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree

import grimp
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "encoder_reduction"
PICTURE = Path(__file__).with_suffix(".svg")

COMMANDS = "entry_points"
WIDTH, HEIGHT, STEP, LINE = 3.9, 1.3, 1.9, 0.21
# Where a box stands in its row; None: it is the ground that all others stand on.
PLACES = {
    COMMANDS: 1.9,
    "command_line": -0.6,
    "launching": 4.55,
    "comparison": 2.4,
    "runs": 6.7,
    "tracking": 0.0,
    "training": 5.4,
    "reductions": 9.7,
    "deployment": 13.9,
    "profiling": 0.0,
    "models": 9.7,
    "data": 5.4,
    "plan": None,
    "errors": None,
}
LEFT = min(x for x in PLACES.values() if x is not None) - WIDTH / 2
RIGHT = max(x for x in PLACES.values() if x is not None) + WIDTH / 2
INK, PALE, EDGE, WING, MODULE = "#1f2933", "#52606d", "#7b8794", "#eaf2fb", "#f4f1ea"
ARROW = {"arrowstyle": "-|>", "color": EDGE, "mutation_scale": 11, "shrinkA": 1, "shrinkB": 1}


@dataclass(frozen=True)
class Map:
    """What the picture shows, and what makes it stale when it changes.

    Attributes:
        layers: from the top; each is the names of its boxes.
        about: what each box is for: the first sentence of its docstring.
        arrows: every pair of which the first imports the second.
    """

    layers: list[list[str]]
    about: dict[str, str]
    arrows: list[tuple[str, str]]

    def as_text(self) -> str:
        """As it is kept in the picture."""
        return json.dumps(asdict(self), sort_keys=True)

    def drawn(self) -> list[tuple[str, str]]:
        """The arrows that do not follow from a longer way: the transitive reduction."""
        below = {box: [b for a, b in self.arrows if a == box] for box in self.about}

        def leads(start: str, end: str) -> bool:
            return start == end or any(leads(step, end) for step in below[start])

        return [(a, b) for a, b in self.arrows if not any(leads(step, b) for step in below[a] if step != b)]


def read() -> Map:
    """The wings as they are in this checkout."""
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    rule = next(rule for rule in rules if rule["type"] == "layers")
    layers = [sorted(name.strip() for name in layer.split("|")) for layer in rule["layers"]]
    wings = [wing for layer in layers for wing in layer]
    graph = grimp.build_graph(PACKAGE.name, cache_dir=None)
    modules = {wing: f"{PACKAGE.name}.{wing}" for wing in wings}
    arrows = [(COMMANDS, wing) for wing in _imported_by_commands()] + [
        (a, b)
        for a in wings
        for b in wings
        if a != b and graph.direct_import_exists(importer=modules[a], imported=modules[b], as_packages=True)
    ]
    about = {COMMANDS: "The commands of MLproject"} | {wing: _about(wing) for wing in wings}
    return Map([[COMMANDS], *layers], about, sorted(arrows))


def kept() -> str:
    """What the committed picture shows, as :meth:`Map.as_text` had it when the picture was drawn."""
    return ElementTree.parse(PICTURE).findtext(".//{http://purl.org/dc/elements/1.1/}description")


def write(shown: Map) -> None:
    """Draw the picture anew; the same map gives the same file."""
    with rc_context({"svg.hashsalt": "wings"}):
        draw(shown).savefig(PICTURE, metadata={"Date": None, "Creator": None, "Description": shown.as_text()})


def draw(shown: Map) -> Figure:
    """The picture."""
    figure = Figure(figsize=(12.4, 11.1))
    axes = figure.subplots()
    top = {box: -STEP * row for row, layer in enumerate(shown.layers) for box in layer}
    for box, y in top.items():
        _box(axes, box, shown.about[box], y)
    for a, b in shown.drawn():
        start, end = _ends(a, b)
        axes.annotate("", (end, top[b]), (start, top[a] - HEIGHT), arrowprops=ARROW)
    axes.set(xlim=(LEFT - 0.05, RIGHT + 0.05), ylim=(min(top.values()) - HEIGHT - 0.05, 0.05), aspect="equal")
    axes.axis("off")
    figure.subplots_adjust(0, 0, 1, 1)
    return figure


def _imported_by_commands() -> set[str]:
    """Wings that the entry points name; these are scripts, so grimp does not see them."""
    text = "\n".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / COMMANDS).glob("*.py")))
    return set(re.findall(rf"^ *from {PACKAGE.name}(?:\.| import )(\w+)", text, re.MULTILINE))


def _about(wing: str) -> str:
    """The first sentence of a wing's docstring."""
    file = PACKAGE / wing / "__init__.py" if (PACKAGE / wing).is_dir() else PACKAGE / f"{wing}.py"
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    return " ".join(re.split(r"\.(?=\s|$)", docstring)[0].replace("``", "").split())


def _span(box: str) -> tuple[float, float]:
    """The left and the right edge of a box."""
    x = PLACES[box]
    return (LEFT, RIGHT) if x is None else (x - WIDTH / 2, x + WIDTH / 2)


def _box(axes: Axes, name: str, about: str, y: float) -> None:
    left, right = _span(name)
    shape = FancyBboxPatch((left, y - HEIGHT), right - left, HEIGHT, boxstyle="round,pad=0,rounding_size=0.12")
    shape.set(facecolor=WING if (PACKAGE / name).is_dir() else MODULE, edgecolor=EDGE)
    axes.add_patch(shape)
    middle, lines = (left + right) / 2, textwrap.wrap(about, 39 if PLACES[name] is not None else 120)
    above = y - HEIGHT / 2 + (len(lines) * LINE + 0.1) / 2
    axes.text(middle, above, name, ha="center", va="center", color=INK, weight="bold", size=10.5)
    axes.text(middle, above - 0.22, "\n".join(lines), ha="center", va="top", color=PALE, size=7.8, linespacing=1.2)


def _ends(a: str, b: str) -> tuple[float, float]:
    """Where an arrow leaves ``a`` and meets ``b``: as upright as the two boxes allow, clear of their corners."""
    (left, right), (others_left, others_right) = (np.add(_span(box), (0.3, -0.3)) for box in (a, b))
    start = (left + right) / 2 if PLACES[b] is None else np.clip(PLACES[b], left, right)
    return start, np.clip(start, others_left, others_right)


if __name__ == "__main__":
    sys.path.insert(0, str(PACKAGE.parent))
    write(read())
