"""Reads a run's stored documents: those of this schema version, and those of the version before.

A deployed stack has summaries of earlier runs, which drift compares with and the command line shows. It may also have
the plan and the shard reports of a run that began before an upgrade and is resumed after it. Documents of version 1
have no `schema_version`.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from stepensemble.batch.documents import RunPlan
from stepensemble.batch.report.statistics import ShardRead, ShardReport
from stepensemble.batch.report.summary import Summary

Document = dict[str, Any]


class _Version(Struct):
    schema_version: int = 1


# The decoders are built here, before there are threads: msgspec builds a type's decoder when it is first needed, and
# two threads that do so at the same time end the process.
_VERSION = msgspec.json.Decoder(_Version)
_DOCUMENT = msgspec.json.Decoder(Document)
_PLAN = msgspec.json.Decoder(RunPlan)
_READ = msgspec.json.Decoder(ShardRead)
_REPORT = msgspec.json.Decoder(ShardReport)
_SUMMARY = msgspec.json.Decoder(Summary)


def decode_plan(body: bytes) -> RunPlan:
    """Decode a run's plan.

    Raises:
        msgspec.DecodeError: it is no plan of a version that is read.
    """
    if _is_first_version(body):
        plan = _DOCUMENT.decode(body)
        plan["edges"] = _split_prediction(plan.get("edges", {}), ())
        plan["previous_summary"] = plan.pop("previous", None)
        return _PLAN.decode(msgspec.json.encode(plan))
    return _PLAN.decode(body)


def decode_shard_report(body: bytes) -> ShardReport:
    """Decode a shard's report.

    Raises:
        msgspec.DecodeError: it is no report of a version that is read.
    """
    return _REPORT.decode(_upgrade_shard(body))


def decode_shard_read(body: bytes) -> ShardRead:
    """Decode what Normalize shard has stored for Aggregate shard.

    Raises:
        msgspec.DecodeError: it is no such document of a version that is read.
    """
    return _READ.decode(_upgrade_shard(body))


def decode_summary(body: bytes) -> Summary:
    """Decode a run's summary.

    Raises:
        msgspec.DecodeError: it is no summary of a version that is read.
    """
    if _is_first_version(body):
        return _SUMMARY.decode(msgspec.json.encode(_upgrade_summary(_DOCUMENT.decode(body))))
    return _SUMMARY.decode(body)


def _upgrade_shard(body: bytes) -> bytes:
    """Return the document of a shard in this version."""
    if not _is_first_version(body):
        return body
    document = _DOCUMENT.decode(body)
    document["statistics"] = _upgrade_statistics(document.pop("tally", {}))
    return msgspec.json.encode(document)


def _is_first_version(body: bytes) -> bool:
    return _VERSION.decode(body).schema_version == 1


def _rename(document: Document, **names: str) -> Document:
    """Return a document with new names for some of its keys, given as new=old; a key that is absent stays absent."""
    new_names = {old: new for new, old in names.items()}
    return {new_names.get(key, key): value for key, value in document.items()}


def _split_prediction(by_name: Document, default: Any) -> Document:
    """Separate the prediction from the features: in version 1 it was the one with the empty name."""
    features = {name: value for name, value in by_name.items() if name}
    return {"prediction": by_name.get("", default), "features": features}


def _upgrade_rejections(rejections: dict[str, dict[str, Document]]) -> Document:
    return {
        column: {reason: _rename(rejection, examples="places") for reason, rejection in reasons.items()}
        for column, reasons in rejections.items()
    }


def _upgrade_accuracy(accuracy: Document) -> Document:
    return _rename(accuracy, correct="right", error_sum="error", probability_sums="said", observed_counts="true")


def _upgrade_statistics(old: Document) -> Document:
    new = _rename(old, ground_truth="truth", rejections="rejected")
    new["histograms"] = _split_prediction(old.get("histograms", {}), None)
    new["accuracy"] = _upgrade_accuracy(old.get("accuracy", {}))
    new["members"] = {
        id_: {**member, "accuracy": _upgrade_accuracy(member.get("accuracy", {}))}
        for id_, member in old.get("members", {}).items()
    }
    new["rejections"] = _upgrade_rejections(old.get("rejected", {}))
    labels = old.get("truth", {})
    new["ground_truth"] = _rename(
        {**labels, "unknown": _rename(labels.get("unknown", {}), examples="places")},
        rows="given",
        unrecognized="unknown",
        case_mismatches="capitals",
        other_reading="other",
    )
    return new


def _upgrade_summary(old: Document) -> Document:
    new = _rename(old, previous_summary="previous")
    calibrations = {
        one.pop("name", ""): _rename(
            one,
            accuracy="right",
            calibration_error="expected",
            mean_predicted="said",
            observed="true",
            **{"mean_absolute_error" if old.get("task") == "regression" else "brier_score": "error"},
        )
        for one in old.get("calibration", ())
    }
    ensemble = calibrations.pop("", None)
    new["calibration"] = None if ensemble is None else {"ensemble": ensemble, "members": calibrations}
    new["histograms"] = _split_prediction(old.get("histograms", {}), None)
    new["previous_histograms"] = {"prediction": old.get("before"), "features": old.get("shifted", {})}
    drift = {one["name"]: one["index"] for one in old.get("drift", ())}
    new["drift"] = _split_prediction(drift, None) if drift else None
    new["bin_names"] = old.get("bins", {})
    new["rejections"] = _upgrade_rejections(old.get("rejections", {}))
    new["sample"] = [{"predicted": predicted, "actual": actual} for predicted, actual in old.get("sample", ())]
    new["previous_sample"] = old.get("sample_before", ())
    cost = old.get("cost", {})
    functions = [_rename(one, memory_mb="memory") for one in cost.get("used", ())]
    new["cost"] = {**cost, "functions": functions}
    labels = old.get("truth")
    new["ground_truth"] = labels and _rename(
        labels,
        label_values="values",
        rows="given",
        unrecognized="unknown",
        examples="places",
        case_mismatches="capitals",
        other_reading="other",
        warning="doubt",
    )
    return new
