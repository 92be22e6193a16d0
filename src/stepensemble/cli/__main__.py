"""`python -m stepensemble.cli` is `ensemble`."""

from stepensemble.cli.app import main

main()
