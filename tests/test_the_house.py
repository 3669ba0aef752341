"""The house keeps its own rules: wings, length of modules, the map, and documents that name what exists."""

import ast
import json
import re
import shutil
import tomllib

import pytest
import wings
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.path import Path as Line

from conftest import ROOT

PACKAGE = ROOT / "src" / "encoder_reduction"
WINGS = sorted(file.parent for file in PACKAGE.glob("*/__init__.py"))
LONG = 300
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
FOLDERS = ("src", "entry_points", "tests", "benchmarks", "docs")
CODE = [file for folder in FOLDERS for file in ROOT.glob(f"{folder}/**/*.py")]


def docstring(file):
    return ast.get_docstring(ast.parse(file.read_text())) or ""


@pytest.fixture
def copy(tmp_path):
    """The sources and their contracts, to be spoiled."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.fixture
def linted(command, copy):
    return lambda: command("lint-imports", "--no-cache", cwd=copy, env={"PYTHONPATH": str(copy / "src")})


def test_every_wing_says_what_it_is_for_and_what_it_does_not_know():
    assert len(WINGS) == 11
    for wing in WINGS:
        said = docstring(wing / "__init__.py")
        assert re.search(r"\bknows?\b", said, re.I), f"{wing.name} does not say what it must not know: {said}"


def test_a_module_over_300_lines_says_why():
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "entry_points").glob("*.py")]
    long = [file for file in files if len(file.read_text().splitlines()) > LONG]
    assert [file.name for file in long if f"Over {LONG} lines, since" not in docstring(file)] == []


def test_the_contracts_are_kept(linted):
    result = linted()
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("reductions/heads.py", "import mlflow", "Only tracking imports mlflow"),
        ("reductions/heads.py", "import pathlib", "Reductions know no files, data or command line"),
        ("data/corpora.py", "from ..models import checkpoints", "arrows point down only"),
        ("novelties/__init__.py", "", "arrows point down only"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(copy, linted, file, line, contract):
    spoiled = copy / "src" / "encoder_reduction" / file
    spoiled.parent.mkdir(exist_ok=True)
    with spoiled.open("a") as module:
        module.write(f"\n{line}\n")
    result = linted()
    assert result.returncode == 1
    assert re.search(rf"{contract} BROKEN", result.stdout), result.stdout


def test_every_wing_but_tracking_is_forbidden_to_import_mlflow():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [each for each in contracts if each.get("forbidden_modules") == ["mlflow"]]
    names = {file.stem for file in PACKAGE.glob("*.py")} - {"__init__"} | {wing.name for wing in WINGS}
    assert set(contract["source_modules"]) == {f"encoder_reduction.{name}" for name in names - {"tracking"}}


def test_the_map_of_the_wings_shows_what_is_there():
    shown, there = json.loads(wings.kept()), json.loads(wings.read().as_text())
    assert shown == there, "The picture is stale: python docs/pictures/wings.py"


def test_the_map_leaves_out_an_arrow_that_a_longer_way_implies():
    arrows = [("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("c", "d")]
    shown = wings.Map([["a"], ["b"], ["c"], ["d"]], dict.fromkeys("abcd", ""), arrows)
    assert shown.drawn() == [("a", "b"), ("b", "c"), ("c", "d")]


def test_no_arrow_of_the_map_crosses_a_box_and_no_words_leave_theirs():
    figure = wings.draw(wings.read())
    renderer = FigureCanvasAgg(figure).get_renderer()
    (axes,) = figure.axes
    boxes = [shape.get_window_extent(renderer) for shape in axes.patches]
    arrows = [text for text in axes.texts if not text.get_text()]
    words = [text for text in axes.texts if text.get_text()]
    assert (len(boxes), len(words)) == (14, 28)
    for arrow in arrows:
        line = Line(axes.transData.transform([arrow.xyann, arrow.xy]))
        assert not any(line.intersects_bbox(box.padded(-1)) for box in boxes), (arrow.xyann, arrow.xy)
    for text in words:
        extent = text.get_window_extent(renderer).padded(2)
        assert any(box.contains(*extent.min) and box.contains(*extent.max) for box in boxes), text.get_text()


def test_the_architecture_names_every_module():
    tree = (ROOT / "docs" / "architecture.md").read_text().split("```")[1]
    for wing in WINGS:
        part = re.search(rf"^    {wing.name}/(.*?)(?=^    \w|^\w|\Z)", tree, re.M | re.S).group(1)
        modules = {file.stem for file in wing.glob("*.py")} - {"__init__"}
        assert modules - set(re.findall(r"\w+", part)) == set(), wing.name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_documents_name_files_and_tests_that_exist(document):
    text = document.read_text()
    known = [f"/{file.relative_to(ROOT)}" for file in CODE]
    for name in set(re.findall(r"[\w/]+\.py\b", text)):
        assert any(path.endswith(f"/{name}") for path in known), f"{name} is nowhere"
    tests = "\n".join(file.read_text() for file in CODE if file.name.startswith("test_"))
    for name in set(re.findall(r"\btest_\w+\b(?!\.py)", text)):
        assert f"def {name}(" in tests, f"there is no {name}"
