"""Predicts whole datasets: splits them into shards, predicts each shard, and merges the results.

- `request`: validates a request for a run, and finds the day it is about; `schedule_times`: when a schedule fires next
- `documents`: the documents of a run that are stored in S3: request, plan, shard, result; `stored_documents` decodes
  them, and those of the version before
- `input`: finds files, splits them into shards, reads and encodes rows
- `output`: members' outputs become rows of results, and files
- `report`: statistics, labels, drift, cost, and the HTML report
- `run_lock`: which execution works on a run
- `publication`: publishes results and report, and marks the run as complete last
- `in_memory`: predicts a table in memory, without files and without a stack

Rows are never visited one by one in Python, except rejected rows, whose reason is computed singly.
"""
