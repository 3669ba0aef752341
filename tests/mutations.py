"""Mutations of the sources, each with the test that fails for it: ``make mutations`` applies the list mutations.toml.

A test that passes whatever the code does says nothing. Each mutation is applied to a copy of the sources, and its test
runs on that copy in a process of its own.
"""

import contextlib
import multiprocessing
import os
import shutil
import sys
import tomllib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import pytest

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_suffix(".toml")
DOCUMENT = ROOT / "docs" / "testing.md"
KILLED, SURVIVES = "killed", "SURVIVES"

_AT_ONCE = 2
# Importing these takes most of a small test's time, so the processes are forked from one that has them.
_LIBRARIES = ["datasets", "evaluate", "matplotlib.figure", "mlflow", "scipy.stats", "sklearn.metrics", "torch",
              "transformers.models.bert.modeling_bert"]  # fmt: skip
_TEST_FOLDERS = ("tests", "tests/support", "tests/reductions")


@dataclass(frozen=True)
class Mutation:
    """One change of the sources that makes them wrong.

    Attributes:
        name: what is wrong then.
        file: within the package.
        before: the exact source text, which is there once.
        after: what it becomes.
        test: node id, within ``tests``, of a test that must fail; empty for a survivor.
        lives: why no test needs to fail; empty where one does.
    """

    name: str
    file: str
    before: str
    after: str
    test: str = ""
    lives: str = ""

    def applied(self) -> str | None:
        """The file's text with the change, ``None`` where the source text is not there exactly once."""
        text = (ROOT / "src" / "encoder_reduction" / self.file).read_text(encoding="utf-8")
        return text.replace(self.before, self.after) if text.count(self.before) == 1 else None


def listed() -> list[Mutation]:
    """All mutations, those that are killed first."""
    return [Mutation(**values) for values in tomllib.loads(LIST.read_text(encoding="utf-8"))["mutation"]]


def outcome(mutation: Mutation) -> str:
    """What becomes of a mutation under its test."""
    text = mutation.applied()
    if text is None:
        return f"SOURCE NOT FOUND in {mutation.file}"
    with TemporaryDirectory(prefix="mutation-") as folder:
        copy = Path(folder)
        shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__"))
        (copy / "presets").symlink_to(ROOT / "presets")
        (copy / "src" / "encoder_reduction" / mutation.file).write_text(text, encoding="utf-8")
        status, said = _tested(copy, mutation.test)
    if status == pytest.ExitCode.TESTS_FAILED:
        return KILLED
    return SURVIVES if status == pytest.ExitCode.OK else f"DOES NOT RUN: {said[-500:]}"


def _tested(copy: Path, test: str) -> tuple[int, str]:
    """Exit status and output of one test on a copy of the sources."""
    paths = " ".join([str(copy / "src"), *(str(ROOT / path) for path in _TEST_FOLDERS)])
    output = copy / "output"
    os.chdir(ROOT)
    with output.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        status = pytest.main([f"tests/{test}", "-x", "-p", "no:cacheprovider", "-o", f"pythonpath={paths}"])
    return int(status), output.read_text()


def table() -> str:
    """The list as docs/testing.md has it."""
    killed, alive = ([m for m in listed() if bool(m.test) == tested] for tested in (True, False))
    lines = ["| What is wrong | File | The test that fails |", "| --- | --- | --- |"]
    lines += [f"| {m.name} | `{m.file}` | `{m.test}` |" for m in killed]
    lines += ["", "| Survivor | File | Why it lives |", "| --- | --- | --- |"]
    lines += [f"| {m.name} | `{m.file}` | {m.lives} |" for m in alive]
    return "\n".join(lines)


@click.command()
@click.option("--only", multiple=True, help="Names, or parts of them; all by default.")
@click.option("--table", "as_table", is_flag=True, help="Print the tables of docs/testing.md and apply nothing.")
def main(only: tuple[str, ...], as_table: bool) -> None:
    """Apply the mutations one at a time; exits with 1 where one survives its test or does not apply."""
    if as_table:
        click.echo(table())
        return
    chosen = [m for m in listed() if m.test and (not only or any(part in m.name for part in only))]
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LIBRARIES)
    with ProcessPoolExecutor(_AT_ONCE, mp_context=context, max_tasks_per_child=1) as pool:
        found = []
        for mutation, result in zip(chosen, pool.map(outcome, chosen), strict=True):
            click.echo(f"{result:<10} {mutation.name:<70} {mutation.test}")
            found.append(result)
    click.echo(f"{found.count(KILLED)} of {len(chosen)} mutations are killed.")
    sys.exit(0 if found.count(KILLED) == len(chosen) else 1)


if __name__ == "__main__":
    main()
