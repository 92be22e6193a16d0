"""The command line: `ensemble`.

`app` collects the `commands` and turns errors into exit codes. `stacks` finds or starts the stack that a command uses.
`execution` and `batch_runs` start executions and wait for them. `tables` renders what is printed.
"""
