"""The `tscope` program: commands imported when called, and errors as one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from tscope_cli.commands import COMMANDS

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
BROKEN_PIPE = 141  # 128 + SIGPIPE


class PlainCommand(typer.core.TyperCommand):
    """A command whose help shows its arguments as they are typed, without braces and types of Python."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what follows the command's name in its usage line."""
        return ["[OPTIONS]", *(name for name, _ in self._arguments(ctx))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and the options for `--help`."""
        options = [one for one in self.get_params(ctx) if one.param_type_name == "option"]
        records = [record for option in options if (record := option.get_help_record(ctx)) is not None]
        for title, entries in (("Arguments", self._arguments(ctx)), ("Options", records)):
            if entries:
                with formatter.section(title):
                    formatter.write_dl(entries)

    def _arguments(self, ctx: Any) -> list[tuple[str, str]]:
        arguments = [one for one in self.get_params(ctx) if isinstance(one, typer.core.TyperArgument)]
        return [(one.metavar or one.name or "", one.help or "") for one in arguments]


class LazyGroup(typer.core.TyperGroup):
    """A group whose commands are imported when they are called, and listed without being imported."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import the module of the command `cmd_name`, or return None if there is none of that name."""
        command = COMMANDS.get(cmd_name)
        if command is None:
            return None
        module = importlib.import_module(f"tscope_cli.{command.module}")
        single = typer.Typer(rich_markup_mode=None, add_completion=False)
        declare = single.command(cmd_name, cls=PlainCommand, context_settings=dict(command.settings))
        declare(getattr(module, command.function))
        return typer.main.get_command(single)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands for `--help` from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in COMMANDS.items()])


# rich would cost more CPU time than the rest of `--help` together.
app = typer.Typer(
    cls=LazyGroup,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"tscope {version('tscope')}\n")
        raise typer.Exit()


@app.callback(
    help="A flight recorder for neural-network training: record a script, telescope it, browse it. "
    "Alone, it opens the browser on ./runs.",
    epilog="Start with: tscope record -- python train.py (or: tscope demo). "
    "--debug, anywhere, shows tracebacks; NO_COLOR is honoured.",
)
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def run(arguments: Sequence[str]) -> int:
    """Run `tscope` with these arguments and return its exit code; errors become one line on stderr."""
    arguments, debug = take_debug(arguments)
    if not arguments:
        arguments = ["browse" if sys.stdin.isatty() and sys.stdout.isatty() else "ls"]
    try:
        # Not `app(…)`: its own handling of interrupts, broken pipes and usage errors prints several lines.
        group = typer.main.get_command(app)
        with group.make_context("tscope", arguments) as context:
            result = group.invoke(context)
        sys.stdout.flush()
    except typer.Exit as leave:
        return leave.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED, debug)
    except BrokenPipeError:
        _silence_stdout()
        return BROKEN_PIPE
    except Exception as error:
        return _fail(*_describe(error, _command(arguments)), debug)
    return result if isinstance(result, int) else 0


def take_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Return the arguments without `--debug`, and whether it was there or TSCOPE_DEBUG is set.

    What belongs to a recorded command, after `--` or after `record` and its first words, is left alone.
    """
    end = _own_arguments(arguments)
    own = [argument for argument in arguments[:end] if argument != "--debug"]
    asked = len(own) < end or os.environ.get("TSCOPE_DEBUG", "") not in ("", "0")
    return [*own, *arguments[end:]], asked


def _own_arguments(arguments: Sequence[str]) -> int:
    """Return how many of the arguments, from the first, are surely for tscope itself."""
    if "--" in arguments:
        return list(arguments).index("--")
    if _command(arguments) != "record":
        return len(arguments)
    end = list(arguments).index("record") + 1
    while arguments[end : end + 1] == ["--debug"]:
        end += 1
    return end


def _command(arguments: Sequence[str]) -> str | None:
    """Return the command that is asked for: the first word that is no option."""
    return next((argument for argument in arguments if not argument.startswith("-")), None)


def _describe(error: Exception, command: str | None) -> tuple[str, int]:
    """Return the one-line message of an error, and the exit code.

    `record` passes its command's own exit code on, so that its every failure has a code of its own.
    """
    # Imported here, since the format package is not needed for `--help`.
    from tscope_format.errors import RecordError, TscopeError, clean

    if isinstance(error, TscopeError):
        return clean(error), error.exit_code
    if isinstance(error, typer.TyperException):
        message = clean(error.format_message()).strip().rstrip(".")
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "tscope"
        message, code = f"{message}; see `{path} --help`", error.exit_code
    else:
        what = clean(error) or "no message"
        message = f"unexpected {type(error).__name__}: {what}; run with --debug for the traceback"
        code = 1
    return message, RecordError.exit_code if command == "record" else code


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    sys.stderr.write(f"tscope: {message}\n")
    return code


def _silence_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's own flush at exit does not complain again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Run the `tscope` program."""
    # A terminal or pipe that cannot encode a symbol gets a "?" rather than a traceback.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
