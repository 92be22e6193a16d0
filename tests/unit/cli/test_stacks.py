"""What a command does with a stack whose template is not this version's."""

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
def test_a_part_that_a_stack_does_not_name_is_missed_with_the_remedy(part: str, output: str) -> None:
    session = boto3.session.Session(region_name="eu-central-1")
    stack = Stack("stepensemble-dev", {}, session, endpoint=None, local=False)
    with pytest.raises(StackOutdated) as missed:
        getattr(stack, part)
    assert str(missed.value).startswith(f'the stack "stepensemble-dev" has no output "{output}": ')
    assert str(missed.value).endswith("; deploy it again, or look at --stack")
