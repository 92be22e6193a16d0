"""From a manifest on disk to a release on a stack.

- `sources`: read a manifest and its artifacts
- `addition`: make a member of a model file; by `deduction`, what the model tells of itself, and `document`, a JSON file
  changed as little as possible
- `conversion`: from a model file of any kind to an artifact; by `formats`, `safety`, `parity`, and `export`, the part
  that TensorFlow does
- `trial`: load and ask artifacts in a process of their own, by `child` and `work`
- `gate`: let nothing through that is not what the manifest says; `screening` asks every member, `checks` and
  `feasibility` judge members and ensemble
- `golden`: the rows that every member is asked at the gate, and where it is verified
- `publish`: upload artifacts, release and fingerprint, move the pointer
- `canary`: how a canary fares beside the current release, and how it ends
- `rollback`: point back at an earlier release
- `promotion`: fetch a release from one stack for another
- `verification`: take a release's fingerprint, and compare a stack with it
- `references`, `overview`: which release a person means; which there are
- `schemas`: the JSON Schemas of manifest and output
"""
