"""The command line, `mllm3rec COMMAND`. Exit code 0 means the command did what it was asked."""

from __future__ import annotations

import sys

import typer
from rich.text import Text

from mllm3rec.cli import (
    artifact,
    attack,
    audit,
    cases,
    compare,
    data,
    demo,
    distill,
    doctor,
    evaluate,
    models,
    prices,
    recommend,
    study,
)
from mllm3rec.cli import compile as compile_command
from mllm3rec.cli.console import err, say

INTERRUPTED = 130

START, EVALUATE, OPTIMIZE, INSPECT = "Start here", "Evaluate", "Optimize and use", "Inspect"

app = typer.Typer(
    name="mllm3rec",
    help="Motivation-aware recommendation with language models: evaluate, compile, compare, recommend.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("demo", rich_help_panel=START)(demo.demo)
app.command("doctor", rich_help_panel=START)(doctor.doctor)
app.add_typer(models.app, name="models", rich_help_panel=START)
app.add_typer(data.app, name="data", rich_help_panel=EVALUATE)
app.command("cases", rich_help_panel=EVALUATE)(cases.cases)
app.command("evaluate", rich_help_panel=EVALUATE)(evaluate.evaluate)
app.add_typer(study.app, name="study", rich_help_panel=EVALUATE)
app.command("compare", rich_help_panel=EVALUATE)(compare.compare)
app.command("attack", rich_help_panel=EVALUATE)(attack.attack)
app.command("compile", rich_help_panel=OPTIMIZE)(compile_command.compile_program)
app.command("recommend", rich_help_panel=OPTIMIZE)(recommend.recommend)
app.command("distill", rich_help_panel=OPTIMIZE)(distill.distill)
app.add_typer(artifact.app, name="artifact", rich_help_panel=INSPECT)
app.command("audit", rich_help_panel=INSPECT)(audit.audit)
app.add_typer(prices.app, name="prices", rich_help_panel=INSPECT)


def main() -> None:
    """Run the command line; what a user can mend is printed without a traceback."""
    try:
        app(standalone_mode=True)
    except SystemExit as ended:
        # Typer turns Ctrl-C into this exit before anything else sees it.
        if ended.code == INTERRUPTED:
            say("interrupted; everything done so far is kept: the same command goes on from there")
        raise
    except BaseException as error:
        code = _explain(error)
        if code is None:
            raise
        sys.exit(code)


def _explain(error: BaseException) -> int | None:
    """Print what a user can mend; the exit code, or None for any other error."""
    from programs.runtime.errors import BudgetExceededError, InputError, MissingExtraError

    if isinstance(error, InputError | MissingExtraError | OSError):
        _print("error:", "bold red", str(error))
        return 2
    if isinstance(error, BudgetExceededError):
        _print("stopped:", "bold yellow", str(error))
        return 3
    if "dspy" in sys.modules:
        from dspy.utils.exceptions import DSPyError

        if isinstance(error, DSPyError):
            _print("error:", "bold red", f"{type(error).__name__}: {error}")
            return 2
    return None


def _print(word: str, style: str, message: str) -> None:
    # Unwrapped: a path broken in two can be neither copied nor searched for.
    err.print(Text.assemble((word, style), " ", message), soft_wrap=True)


if __name__ == "__main__":
    main()
