"""Validates, encodes and scales rows of features.

- `encoding`: rows to named columns; `single_row`: the same for one row, many times as fast
- `columns`: how columns are stacked, and stored as JSON or bytes
- `precision`: which features lose digits in float32
"""
