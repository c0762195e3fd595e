"""The command line: `mllm3rec COMMAND`. Exit code 0 means the command did what it was asked."""

from __future__ import annotations

import os
import sys

# DSPy asks GitHub for a price list at start otherwise (measured, design.md section 4).
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")

import typer
from dspy.utils.exceptions import DSPyError
from rich.text import Text

from mllm3rec.cli import artifact, audit, cases, compare, data, demo, doctor, models, prices, recommend, study
from mllm3rec.cli import compile as compile_command
from mllm3rec.cli import evaluate as evaluate_command
from mllm3rec.cli.console import err, quieten_dspy, say
from programs.runtime.errors import BudgetExceededError, InputError, MissingExtraError

INTERRUPTED = 130

app = typer.Typer(
    name="mllm3rec",
    help="Motivation-aware recommendation with language models: data, cases, evaluation, recommendations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("doctor")(doctor.doctor)
app.add_typer(models.app, name="models")
app.add_typer(prices.app, name="prices")
app.add_typer(data.app, name="data")
app.command("cases")(cases.cases)
app.command("distill")(evaluate_command.distill)
app.command("evaluate")(evaluate_command.evaluate)
app.command("compile")(compile_command.compile_program)
app.add_typer(artifact.app, name="artifact")
app.add_typer(study.app, name="study")
app.command("compare")(compare.compare)
app.command("recommend")(recommend.recommend)
app.command("audit")(audit.audit)
app.command("demo")(demo.demo)


def main() -> None:
    """Run the command line; what a user can mend is printed without a traceback."""
    quieten_dspy()
    try:
        app(standalone_mode=True)
    except (InputError, MissingExtraError, OSError) as error:
        _tell("error:", "bold red", str(error))
        sys.exit(2)
    except DSPyError as error:
        _tell("error:", "bold red", f"{type(error).__name__}: {error}")
        sys.exit(2)
    except BudgetExceededError as error:
        _tell("stopped:", "bold yellow", str(error))
        sys.exit(3)
    except SystemExit as ended:
        # Typer turns Ctrl-C into this exit before anybody else sees it.
        if ended.code == INTERRUPTED:
            say("interrupted; everything done so far is kept: the same command goes on from there")
        raise


def _tell(word: str, style: str, message: str) -> None:
    # Unwrapped: a path broken in two can be neither copied nor searched for.
    err.print(Text.assemble((word, style), " ", message), soft_wrap=True)


if __name__ == "__main__":
    main()
