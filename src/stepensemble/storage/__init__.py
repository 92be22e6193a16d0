"""Stores objects in S3 and records in DynamoDB, reads review events from CloudWatch Logs, and defines all object keys.

- `objects`: one bucket, with conditional writes
- `keys`: all object keys
- `releases`: artifacts, releases, fingerprints, and the pointer to the current release
- `record_table`: one item for each execution
- `payload_pointers`: rows, predictions and outputs that are too large for a state
- `review_log`: the events that request a review
- `executions`: whether an execution runs
"""
