"""The expected files beside each event: `NAME.output.json`, or `NAME.error.json`.

Images are events of the ensemble of digits, all others of the ensemble of passengers.

Run as a script, it writes them again from the ensemble in process, so that a person can read the difference:

    .venv/bin/python tests/expected_events.py
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepensemble import Ensemble
from stepensemble.core.errors import InvalidPayload

ROOT = Path(__file__).resolve().parent.parent
EVENTS = ROOT / "events"
VOLATILE = ("duration_ms", "cold")


def without_volatile(output: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of an output what differs from one execution to the next."""
    kept = {key: value for key, value in output.items() if key != "prediction_id"}
    kept["members"] = [
        {key: value for key, value in member.items() if key not in VOLATILE} for member in output["members"]
    ]
    return kept


def list_events(prefix: str = "") -> list[Path]:
    """Return the event files of that prefix, without the files beside them."""
    return sorted(path for path in EVENTS.glob(f"{prefix}*.json") if path.stem.count(".") == 0)


def list_images() -> list[Path]:
    """Return the events that are images."""
    return sorted(EVENTS.glob("*.png"))


def image_payload(path: Path) -> dict[str, Any]:
    """Return the payload that sends an image."""
    return {"features": {"image": base64.b64encode(path.read_bytes()).decode()}}


def main() -> None:
    """Write every expected file except that of the event that is not JSON, whose error is the parser's."""
    digits = Ensemble.load(ROOT / "models" / "digits" / "manifest.json")
    for path in list_images():
        expected = without_volatile(digits.predict(image_payload(path)))
        path.with_suffix(".output.json").write_text(json.dumps(expected, indent=2) + "\n")
    ensemble = Ensemble.load(ROOT / "models" / "manifest.json")
    for path in list_events():
        if path.stem == "bad-not-json":
            continue
        try:
            expected = without_volatile(ensemble.predict(json.loads(path.read_text())))
            target = path.with_suffix(".output.json")
        except InvalidPayload as error:
            expected = {"error": "InvalidPayload", "cause": str(error)}
            target = path.with_suffix(".error.json")
        target.write_text(json.dumps(expected, indent=2) + "\n")


if __name__ == "__main__":
    main()
