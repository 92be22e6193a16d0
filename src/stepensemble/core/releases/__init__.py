"""What a stack serves, and what else there is.

- `release`: a manifest compiled, named by its digest; which slot serves which member
- `current`: the pointer to the release that is served, its history and its canary
- `differences`: two releases compared, in words
- `fingerprint`: what the members said when a release was admitted
"""
