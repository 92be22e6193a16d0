"""Reads from Step Functions whether an execution of a state machine runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from stepensemble.core.errors import StorageUnavailable

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient


@dataclass(frozen=True, slots=True)
class Executions:
    """The executions that a client may describe."""

    client: SFNClient

    def is_running(self, arn: str) -> bool:
        """Return whether an execution runs; False for one that Step Functions has deleted, after 90 days.

        Raises:
            StorageUnavailable: Step Functions fails or does not respond.
        """
        try:
            return self.client.describe_execution(executionArn=arn)["status"] == "RUNNING"
        except self.client.exceptions.ExecutionDoesNotExist:
            return False
        except (BotoCoreError, ClientError) as error:
            raise StorageUnavailable(f"Step Functions: {error}") from None
