"""The command line, `mllm3rec COMMAND`. Exit code 0 means that the command did everything it was asked to do."""

from __future__ import annotations

import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Annotated, NoReturn

import typer
from rich.text import Text

from mllm3rec.cli import (
    artifact,
    attack,
    audit,
    batch,
    cache,
    cases,
    compare,
    data,
    demo,
    distill,
    doctor,
    evaluate,
    export,
    gate,
    models,
    prices,
    profile,
    recommend,
    serve,
    study,
    view,
)
from mllm3rec.cli import compile as compile_command
from mllm3rec.cli.console import err, printable, say
from programs.runtime.interrupts import Terminated, end_despite_threads, end_on_termination

INTERRUPTED = 130
_SIGNALLED = 128
"""Exit code of a command that a signal ended, less the signal's number."""

START, EVALUATE, OPTIMIZE, INSPECT = "Start here", "Evaluate", "Optimize and use", "Inspect"

app = typer.Typer(
    name="mllm3rec",
    help="Motivation-aware recommendation with language models: evaluate, compile, compare, recommend.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def traced(
    context: typer.Context,
    trace: Annotated[
        bool, typer.Option("--trace", help="OpenTelemetry spans of calls, exported as OTEL_* variables say.")
    ] = False,
    trace_texts: Annotated[bool, typer.Option("--trace-texts", help="The same with questions and answers.")] = False,
) -> None:
    """Motivation-aware recommendation with language models: evaluate, compile, compare, recommend."""
    if trace or trace_texts:
        from programs.runtime.environment import using

        context.with_resource(using("trace", "texts" if trace_texts else "calls"))


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
app.command("gate", rich_help_panel=OPTIMIZE)(gate.gate)
app.command("recommend", rich_help_panel=OPTIMIZE)(recommend.recommend)
app.command("serve", rich_help_panel=OPTIMIZE)(serve.serve)
app.command("profile", rich_help_panel=OPTIMIZE)(profile.profile)
app.command("distill", rich_help_panel=OPTIMIZE)(distill.distill)
app.add_typer(batch.app, name="batch", rich_help_panel=OPTIMIZE)
app.command("view", rich_help_panel=INSPECT)(view.view)
app.add_typer(artifact.app, name="artifact", rich_help_panel=INSPECT)
app.command("audit", rich_help_panel=INSPECT)(audit.audit)
app.add_typer(cache.app, name="cache", rich_help_panel=INSPECT)
app.add_typer(export.app, name="export", rich_help_panel=INSPECT)
app.add_typer(prices.app, name="prices", rich_help_panel=INSPECT)


def main() -> None:
    """Run the command line; errors that the caller can fix are printed without a traceback."""
    # File names may be invalid text; their bytes are printed as escapes.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    end_on_termination()
    try:
        app(standalone_mode=True)
    except SystemExit as ended:
        # Typer turns Ctrl-C into this exit code.
        if ended.code == INTERRUPTED:
            _leave(_interruption(ended))
        raise
    except KeyboardInterrupt as error:
        _leave(error)
    except BaseException as error:
        code = _explain(error)
        if code is None:
            raise
        sys.exit(code)


def _interruption(error: BaseException) -> KeyboardInterrupt:
    """The interruption that caused an exit."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return cause or KeyboardInterrupt()


def _leave(error: KeyboardInterrupt) -> NoReturn:
    """Say how to continue, and end the process, even if a call is still in flight."""
    word, code = "interrupted", INTERRUPTED
    if isinstance(error, Terminated):
        word, code = f"ended by {error}", _SIGNALLED + error.number
    with suppress(OSError):  # After SIGHUP there may be no terminal any more.
        say(f"{word}; everything done so far is kept: the same command goes on from there")
    end_despite_threads(code)
    sys.exit(code)


def _explain(error: BaseException) -> int | None:
    """Print an error that the caller can fix and return its exit code; None for other errors."""
    from programs.runtime.errors import BudgetExceededError, InputError, MissingExtraError, one_line

    if isinstance(error, InputError | MissingExtraError | OSError):
        _print("error:", "bold red", str(error))
        return 2
    if isinstance(error, BudgetExceededError):
        _print("stopped:", "bold yellow", str(error))
        return 3
    if "programs.batch.question_file" in sys.modules:
        from programs.batch.question_file import WaveWritten

        if isinstance(error, WaveWritten):
            _print("written:", "bold", str(error))
            return batch.WAVE_WRITTEN
    if "dspy" in sys.modules:
        from dspy.utils.exceptions import DSPyError

        if isinstance(error, DSPyError):
            _print("error:", "bold red", f"{type(error).__name__}: {one_line(error)}")
            return 2
    return None


def _print(word: str, style: str, message: str) -> None:
    # Not wrapped: a path on two lines cannot be copied or searched for.
    err.print(Text.assemble((word, style), " ", printable(message)), soft_wrap=True)


if __name__ == "__main__":
    main()
