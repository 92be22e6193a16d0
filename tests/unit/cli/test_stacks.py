"""A stack that was deployed by another version of the template."""

from __future__ import annotations

import boto3
import pytest

from stepensemble.cli.stacks import Stack
from stepensemble.core.errors import StackOutdated

PARTS = {
    "state_machine": "StateMachineArn",
    "releases": "ArtifactBucketName",
    "data": "DataBucketName",
    "records": "RecordsTableName",
    "reviews": "ReviewLogGroupName",
}


@pytest.mark.parametrize(("part", "output"), PARTS.items())
def test_a_missing_output_of_a_stack_is_an_error_with_the_remedy(part: str, output: str) -> None:
    session = boto3.session.Session(region_name="eu-central-1")
    stack = Stack("stepensemble-dev", {}, session, endpoint=None, local=False)
    with pytest.raises(StackOutdated) as error:
        getattr(stack, part)
    assert str(error.value).startswith(f'the stack "stepensemble-dev" has no output "{output}": ')
    assert str(error.value).endswith("; deploy it again, or name another stack with --stack")
