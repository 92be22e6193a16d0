"""The command line: `ensemble`.

`app` declares the commands and turns errors into exit codes; `stacks` finds or starts the stack a command talks to;
`execution` starts executions and waits for them; `pictures` draws what people see. Every command also has `--json`.
"""
