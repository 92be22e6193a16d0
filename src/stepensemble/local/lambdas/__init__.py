"""The local Lambda: a pool of processes that run the handlers, and the Runtime API that sends them invocations."""
