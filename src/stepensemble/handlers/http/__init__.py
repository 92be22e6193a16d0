"""The HTTP API: `routes` maps requests to the `service`, which starts executions and invokes members by `invoker`."""
