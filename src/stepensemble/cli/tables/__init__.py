"""The tables that commands print; `--json` beside each of them prints the same data for programs."""
