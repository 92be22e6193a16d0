"""Publishes manifests as releases on a stack, and manages these releases.

- `manifest_loader`: reads a manifest and its artifacts
- `golden`: the rows that every member predicts at the gate and in a verification
- `publish`: uploads artifacts, release and fingerprint, and moves the pointer
- `canary`: compares a canary with the current release, promotes or aborts it
- `rollback`: moves the pointer back to an earlier release
- `promotion`: reads a release from one stack, to publish it on another
- `verification`: makes a release's fingerprint, and compares a stack with it
- `release_lookup`: finds a release by a reference; `release_list`: lists the releases of a stack
- `schemas`: the JSON Schemas of manifest and output
"""
