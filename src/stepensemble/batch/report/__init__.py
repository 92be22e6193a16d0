"""What a run reports about itself.

- `statistics`: counts a shard's rows, and merges the counts of shards; `sampling`: keeps a sample of rows
- `summary`: the run's `summary.json`; `label_summary`, `confusion`, `calibration`: predictions compared with labels
- `drift`: compares with the run before; `cost`: estimates the bill
- `html`: the report page, with `charts` and `html_elements`
"""
