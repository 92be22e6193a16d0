"""Checks a manifest and its models before anything is published.

- `gate`: runs every check, and reports what it found
- `probes`: predicts the golden rows with every member; `member_checks`, `output_meaning`, `repeatability` and
  `ensemble_checks` judge the results
- `new_member`: adds a model file to the manifest as a member, after the gate has passed the manifest that results
- `json_edit`: edits a JSON file and keeps its formatting
"""
