"""What the Lambda functions do, between the event and the core.

One module a function, each with a frozen dataclass of what it works on and one call; `wiring` builds them from the
environment, once a process. Errors that a person can mend (a bad payload, no quorum) are answered as data, never
raised: Lambda writes the message of a raised error to its log, and these messages quote feature values.
"""
