"""How a local stack is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stepensemble.local.lambdas.pool import FunctionCode

WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class LocalStackOptions:
    """Options of `LocalStack.start`; each has a default.

    Attributes:
        state_dir: folder of state, logs and caches; None for `.stepensemble` in the project.
        fresh: remove the stored state first.
        parameters: overrides of the template's defaults.
        port: of the AWS APIs; 0 for a free one.
        http_port: of the HTTP API; 0 for a free one.
        auth: the HTTP API rejects unsigned requests; only the form of a signature is checked (`http.api_gateway`).
        concurrency: the most processes of a function; None for the number of processors, at least 4.
        on_wait: called with a message if another command has to finish first.
        code: functions' code by logical id, instead of what the template names.
        announce: write `stack.json` into the state's folder, for `find_running`.
        account: twelve digits, of a new state; None for 123456789012, or the next one that no other stack of this
            process has.
        tensorflow: have the slots for TensorFlow too; None to have them where TensorFlow is installed.
        wait_seconds: how long to wait for another command.
    """

    state_dir: Path | None = None
    fresh: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    http_port: int = 0
    auth: bool = False
    concurrency: int | None = None
    on_wait: Callable[[str], None] = lambda _: None
    code: Mapping[str, FunctionCode] = field(default_factory=dict)
    announce: bool = False
    account: str | None = None
    tensorflow: bool | None = None
    wait_seconds: float = WAIT_SECONDS


DEFAULTS = LocalStackOptions()
