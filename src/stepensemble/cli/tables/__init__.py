"""The tables that commands print. With `--json` a command prints the same data for programs."""
