"""What the Lambda functions do, between the event and the core.

`prediction`, `batch`, `http` and `inbox` have one module for each function: a frozen dataclass of what it works with,
and one call. `bootstrap` builds them from the environment, once in each process. `state` holds the types that travel
in the state machine. An error that a caller can fix (a bad payload, no quorum) is returned as data (`failures`), never
raised: Lambda logs the message of a raised error, and these messages quote feature values.
"""
