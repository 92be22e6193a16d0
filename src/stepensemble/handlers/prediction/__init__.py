"""The functions of an execution: `normalize`, `score`, `aggregate`; `cascade` and `warmup` belong to all three."""
