"""What a stack serves, and what it served before.

- `release`: a manifest compiled, named by its digest; which slot serves which member
- `pointer`: the pointer to the current release, its history and its canary
- `diff`: compares two releases, in words
- `fingerprint`: the members' outputs when a release was admitted
"""
