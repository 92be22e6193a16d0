"""The functions of the daily batch: `plan`, `normalize_shard`, `aggregate_shard`, `summarize`."""
