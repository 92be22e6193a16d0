"""From a manifest on disk to a release on a stack.

- `sources`: read a manifest and its artifacts
- `gate`: try every artifact against what the manifest says of it
- `publish`: upload artifacts and release, move the pointer
- `schemas`: the JSON Schemas of manifest and output
"""
