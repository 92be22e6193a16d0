"""From a manifest on disk to a release on a stack.

- `sources`: read a manifest and its artifacts
- `golden`: the rows that every member is asked at the gate, and where it is verified
- `publish`: upload artifacts, release and fingerprint, move the pointer
- `canary`: how a canary fares beside the current release, and how it ends
- `rollback`: point back at an earlier release
- `promotion`: fetch a release from one stack for another
- `verification`: take a release's fingerprint, and compare a stack with it
- `references`, `overview`: which release a person means; which there are
- `schemas`: the JSON Schemas of manifest and output
"""
