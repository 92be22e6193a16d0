"""The `ensemble` command: collects the commands, and turns errors into exit codes.

Exit codes: 0 success; 1 the command failed (an invalid manifest or payload, no quorum, no stack); 2 wrong usage (an
unknown option, a file that is missing or is not JSON).
"""

from __future__ import annotations

import signal
import sys
from typing import Annotated, NoReturn

import typer

from stepensemble.cli.commands import add, batch, check, local, predictions, releases, warm, watch
from stepensemble.cli.options import STACK_PANEL
from stepensemble.cli.terminal import out, print_error
from stepensemble.core.errors import EnsembleError

# Each command imports what it needs when it runs: `ensemble --help` should not wait for boto3 or NumPy.
app = typer.Typer(
    name="ensemble",
    help="Serve an ensemble of TensorFlow models from AWS Step Functions.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Panels of `ensemble --help` appear in the order of their first command.
for module in (predictions, watch, batch, check, add, releases, warm):
    app.add_typer(module.commands)
app.add_typer(local.commands, name="local", rich_help_panel=STACK_PANEL)


def _print_version(requested: bool) -> None:  # noqa: FBT001 (Typer passes the option's value by position)
    if requested:
        import stepensemble

        out.print(f"stepensemble {stepensemble.__version__}")
        raise typer.Exit


@app.callback()
def _configure(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take the options that come before a command."""


def main() -> NoReturn:
    """Run the command; the entry point."""
    # SIGTERM unwinds like Ctrl-C, so that a stack that was started for this command is stopped with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except EnsembleError as error:
        print_error(type(error).__name__, str(error))
    except Exception as error:
        # Messages of botocore and obstore are for users; any other error is a bug here and keeps its traceback.
        if not type(error).__module__.startswith(("botocore", "obstore")):
            raise
        print_error(type(error).__name__, str(error))
    sys.exit(1)
