from __future__ import annotations

import traceback
from typing import Any

import polars as pl
import pytest
from botocore.exceptions import ClientError

from stepensemble.core.errors import InternalError, StorageUnavailable
from stepensemble.handlers.redaction import conceal_values


def raise_error(error: BaseException, _context: Any) -> None:
    raise error


@pytest.mark.parametrize("error", [ValueError("could not convert 151.55"), pl.exceptions.PanicException("151.55")])
def test_an_unexpected_exception_is_raised_with_its_type_and_place_and_without_its_message(
    error: BaseException,
) -> None:
    with pytest.raises(InternalError) as raised:
        conceal_values(raise_error)(error, None)
    assert str(raised.value).startswith(f"{type(error).__name__} in raise_error, test_redaction.py:")
    written = "".join(traceback.format_exception(raised.value))
    assert "151.55" not in written
    assert "raise error" in written, "the place of the fault is in the traceback"


def test_an_aws_error_keeps_its_code_and_operation() -> None:
    error = ClientError({"Error": {"Code": "AccessDenied", "Message": "151.55"}}, "PutItem")
    with pytest.raises(InternalError, match=r"^ClientError AccessDenied of PutItem in ") as raised:
        conceal_values(raise_error)(error, None)
    assert "151.55" not in str(raised.value)


def test_expected_errors_and_responses_pass() -> None:
    with pytest.raises(StorageUnavailable, match=r"^later$"):
        conceal_values(raise_error)(StorageUnavailable("later"), None)
    assert conceal_values(lambda event, context: (event, context))(1, 2) == (1, 2)
