"""Recomputes recorded predictions under another policy, without invoking a model.

- `replay`: takes records and releases, and returns what changes
- `recorded_outputs`: the members' outputs, read from records
- `what_if`: what to try: another manifest, method or weights
- `report`: how two predictions for a row differ, and the totals
"""
