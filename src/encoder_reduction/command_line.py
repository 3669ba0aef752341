"""What the entry points share: click options made from the preset's fields, and errors as sentences."""

import re
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from .errors import UserError, explain, leave_in_order_when_stopped
from .plan.complaints import updated
from .plan.equal_budgets import EqualBudgets
from .plan.presets import Preset, load
from .plan.runtimes import Runtimes
from .plan.sections import MODELS, Beginning, Budget, Distillation, FineTuning, Inputs, Profiling, Reduction
from .plan.study import Study
from .tracking import job

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

model_option = click.option("--model", type=click.Choice(MODELS), required=True, help="Which of the preset's encoders.")
preset_option = click.option(
    "--preset",
    default="auto",
    show_default=True,
    help="paper, packaged, the path of a YAML file, or auto: paper with a CUDA GPU, else packaged.",
)
seed_option = click.option("--seed", type=int, help="Seed of everything random.  [default: the preset's first]")
seeds_option = click.option("--seeds", help="Seeds, such as 42,43,44.  [default: the preset's]")
rerun_option = click.option(
    "--rerun", type=bool, default=False, show_default=True, help="Repeat runs that are finished already."
)

keep_models_option = click.option(
    "--keep_models",
    type=click.Choice(("all", "best")),
    default="all",
    show_default=True,
    help="best: once they are compared, remove the models of reductions that were not chosen.",
)


class EntryPoint(click.Command):
    """A click command that names every unknown option at once and shows no traceback for a user's mistake."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse all unknown options in one sentence before click refuses the first."""
        try:
            return self._parse(ctx, args)
        except click.UsageError:
            job.note_end("failed")
            raise

    def _parse(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        given = {arg.partition("=")[0] for arg in args if arg.startswith("--")}
        if unknown := sorted(given - known):
            names = ", ".join(option.removeprefix("--") for option in unknown)
            allowed = ", ".join(sorted(option.removeprefix("--") for option in known if option != "--help"))
            raise click.UsageError(f"Unknown parameter: {names}; '{ctx.info_name}' takes: {allowed}.", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what the user can mend becomes one sentence and exit status 1."""
        leave_in_order_when_stopped()
        how = "failed"
        try:
            result = super().invoke(ctx)
            how = "finished"
            _say_where_to_look()
            return result
        except SystemExit:
            how = "stopped"
            raise
        except Exception as error:
            sentence = explain(error)
            if sentence is None:
                raise
            raise click.ClickException(sentence) from error
        finally:
            job.note_end(how)


def setting_options(*sections: type[BaseModel]) -> Decorator:
    """One option for each field of the sections; what is not given stays as the preset has it."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for section in reversed(sections):
            for name, field in reversed(section.model_fields.items()):
                option = "--" + name
                function = click.option(option, name, type=_type(field), help=_help(field))(function)
        return function

    return decorate


run_options = setting_options(FineTuning, Profiling)
input_options = setting_options(Inputs)
runtimes_options = setting_options(Runtimes)
budgets_options = setting_options(EqualBudgets)
reduction_options = setting_options(Reduction, Budget, Beginning, Distillation)


def load_preset(name: str) -> Preset:
    """The preset, said aloud with the reason for the choice."""
    preset, chosen = load(name)
    say(chosen)
    return preset


def load_study(preset: str, seeds: str | None, overrides: dict[str, Any]) -> Study:
    """The study of a preset, some seeds, and values given instead of the preset's.

    Raises:
        UserError: no such preset, or a value is out of range.
    """
    chosen = load_preset(preset)
    numbers = integers("seeds", seeds) if seeds else chosen.seeds
    given = {key: value for key, value in overrides.items() if value is not None}
    budgets = updated(chosen.equal_budgets, given)
    own = {key: value for key, value in given.items() if key not in EqualBudgets.model_fields}
    chosen.plan("baseline", next(iter(chosen.models)), overrides=own)  # Says at once what is wrong with them.
    return Study(chosen, own, numbers, budgets)


def integers(name: str, text: str) -> tuple[int, ...]:
    """Whole numbers separated by commas.

    Raises:
        UserError: anything else.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"{name}={text} is not allowed: give whole numbers separated by commas, as 42,43.") from error


def pairs(name: str, text: str) -> dict[str, str]:
    """Names and values, as ``a=b,c=d``.

    Raises:
        UserError: anything else.
    """
    found = [part.partition("=") for part in text.split(",")]
    if not all(re.fullmatch(r"[\w./-]+", key) and equals and value for key, equals, value in found):
        raise UserError(f"{name}={text} is not allowed: give names and values, as model=bert,owner=me.")
    return {key: value for key, _, value in found}


def report(outcome: Any) -> None:
    """The result of one run, on standard output."""
    click.echo(f"{outcome.name} (MLflow run {outcome.run_id})")
    for name, value in outcome.metrics.items():
        click.echo(f"  {name:<32} {value:,.4g}" if value < 1000 else f"  {name:<32} {value:,.0f}")


def say(line: str) -> None:
    """One line of progress to the person who watches; results alone go to standard output."""
    click.echo(line, err=True)


def _say_where_to_look() -> None:
    from .tracking import pages  # A mistake is reported before MLflow loads.

    for line in pages.where_to_look():
        say(line)


def _type(field: FieldInfo) -> Any:
    if any(isinstance(each, BeforeValidator) for each in field.metadata):
        return str  # The field has spellings of its own.
    for candidate in (field.annotation, *get_args(field.annotation)):
        if get_origin(candidate) is Literal:
            return click.Choice(get_args(candidate))
        if candidate in (bool, int, float):
            return candidate
    return str


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    return f"{text[:1].upper()}{text[1:]}."
