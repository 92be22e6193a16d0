"""Records decided again under other terms, without a model being asked.

- `replaying`: records and releases in, what changes out
- `recall`: what members said, from records
- `what_if`: what is tried: another manifest, method or weights
- `changes`: how two decisions of a row differ, and the sums of that
"""
