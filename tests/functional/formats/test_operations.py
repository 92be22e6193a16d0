"""The table of operations that compute, held to TensorFlow's registry."""

from __future__ import annotations

import re
from typing import Any

import pytest

from stepensemble.runtimes import allowed_operations
from stepensemble.runtimes.graph_checks import RESTORES, SAVES, TABLES

pytestmark = pytest.mark.tensorflow

TEXT_ARGUMENTS = set(
    """
    basename bytes contents context_dense_keys context_ragged_keys context_sparse_keys data debug_name delimiter
    dense_keys feature_list_dense_keys feature_list_dense_missing_assumed_empty feature_list_ragged_keys
    feature_list_sparse_keys input input_bytes inputs json_examples method names pattern ragged_keys records rewrite sep
    serialized serialized_summary_metadata sparse_keys string_tensor tag tags
    """.split()  # noqa: SIM905 - as the table is written
)
"""Arguments that are text to compute with, each read. The `handle` of TensorFlow 1's arrays is their name in memory."""

TEXT_ATTRIBUTES = set(
    """
    allowed_devices bad_indices_policy config config_proto container context_dense_keys context_sparse_keys dct_method
    debug_name dense_keys description dimension_numbers display_name dst_format encoding equation executor_type
    feature_list_dense_keys feature_list_dense_missing_assumed_empty feature_list_sparse_keys field_delim fill fill_mode
    frame_name input_encoding input_order interpolation kernel_type labels left_pad message na_value noise padding
    pattern placeholder rewrite right_pad row_partition_types separator set_operation shared_name source sparse_keys
    src_format stack_name template tensor_array_name var_name xmp_metadata
    """.split()  # noqa: SIM905 - as the table is written
)
"""Attributes that are free text, each read: none of them names a file."""

READ = re.compile(r"Dataset|Iterator|File|Reader|PyFunc|Queue|Session|Rpc|Remote|Send|Recv|Print|Xla|TPU|Custom|Mlir")
"""Parts of the names of operations that do more than compute."""


def definition(name: str) -> Any:
    from tensorflow.python.framework import op_def_registry

    return op_def_registry.get(name)


def test_every_operation_exists_and_is_in_one_group() -> None:
    groups = [
        allowed_operations.NUMBERS,
        allowed_operations.TEXT,
        allowed_operations.LISTS,
        allowed_operations.CALLS,
        allowed_operations.VARIABLES,
        allowed_operations.TABLES,
        allowed_operations.RANDOM,
    ]
    assert sum(map(len, groups)) == len(allowed_operations.ALLOWED)
    judged = {*SAVES, *RESTORES, *TABLES}
    assert [name for name in sorted(allowed_operations.ALLOWED | judged) if definition(name) is None] == []
    assert not judged & allowed_operations.ALLOWED


def test_operations_on_numbers_or_text_have_no_state_and_no_function() -> None:
    assert [
        name for name in sorted(allowed_operations.NUMBERS | allowed_operations.TEXT) if definition(name).is_stateful
    ] == ["Assert"]
    takes_functions = {
        name
        for name in allowed_operations.ALLOWED
        if any(attribute.type in ("func", "list(func)") for attribute in definition(name).attr)
    }
    assert takes_functions == allowed_operations.CALLS


def test_no_argument_and_no_attribute_names_a_file() -> None:
    from tensorflow.core.framework import types_pb2

    arguments, attributes = set(), set()
    for name in allowed_operations.ALLOWED:
        one = definition(name)
        arguments |= {
            (argument.name, name)
            for argument in one.input_arg
            if argument.type == types_pb2.DT_STRING and not argument.is_ref
        }
        attributes |= {
            (attribute.name, name)
            for attribute in one.attr
            if attribute.type in ("string", "list(string)") and not attribute.allowed_values.list.s
        }
    unread = {(argument, name) for argument, name in arguments if argument not in TEXT_ARGUMENTS}
    assert {argument for argument, _ in unread} == {"handle"}
    assert {name for _, name in unread} <= allowed_operations.LISTS
    assert {attribute for attribute, _ in attributes} <= TEXT_ATTRIBUTES


def test_no_allowed_operation_has_the_name_of_an_unsafe_one() -> None:
    assert [name for name in sorted(allowed_operations.ALLOWED) if READ.search(name)] == ["ShardedFilename"]


@pytest.mark.parametrize(
    "name",
    [
        *("ReadFile", "WriteFile", "MatchingFiles", "ImmutableConst", "FixedUnigramCandidateSampler", "Skipgram"),
        *("DatasetFromGraph", "TFRecordDatasetV2", "CacheDatasetV2", "SaveDatasetV2", "PyFunc", "EagerPyFunc"),
        *("PrintV2", "DumpTensor", "DebugIdentityV3", "WriteScalarSummary", "DecodeProtoV2", "XlaCallModule"),
        *("Abort", "RemoteCall", "MlirPassthroughOp", "CalibrationStatisticsSaver", "GenerateVocabRemapping"),
    ],
)
def test_operations_that_open_files_or_run_code_exist_and_are_not_allowed(name: str) -> None:
    assert definition(name) is not None
    assert name not in allowed_operations.ALLOWED
