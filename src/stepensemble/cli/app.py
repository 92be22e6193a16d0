"""The `ensemble` command: collects the commands, and turns errors into exit codes.

Exit codes: 0 ok; 1 the job failed (a bad manifest or payload, no quorum, no stack); 2 wrong usage (an unknown option, a
file that is missing or not JSON); 3 not proven.
"""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

import typer

from stepensemble.cli.commands import add, batch, check, local, predictions, releases, warm, watch
from stepensemble.cli.terminal import complain
from stepensemble.core.errors import EnsembleError

# Each command imports what it needs when it runs: `ensemble --help` should not wait for boto3 or NumPy.
app = typer.Typer(
    name="ensemble",
    help="Serve an ensemble of TensorFlow models from AWS Step Functions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for module in (check, predictions, batch, add, releases, warm, watch):
    app.add_typer(module.commands)
app.add_typer(local.commands, name="local")


def main() -> NoReturn:
    """Run the command; the entry point."""
    # SIGTERM unwinds like Ctrl-C, so that a stack started for this command is taken down with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except EnsembleError as error:
        complain(type(error).__name__, str(error))
    except Exception as error:
        # What botocore and obstore say is for people; anything else is our fault and keeps its traceback.
        if not type(error).__module__.startswith(("botocore", "obstore")):
            raise
        complain(type(error).__name__, str(error))
    sys.exit(1)
