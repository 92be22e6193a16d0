"""A whole dataset through the ensemble: cut into shards, each of them answered by itself, and put together again.

- `run`: what is asked of a run, what was planned, what became of a shard: the documents that lie in S3
- `datasets`: which files there are, and what is in them; `texts`: their text, decompressed and decoded
- `records`: where a CSV's records begin and end; `footers`: where Parquet's columns lie; `parquet_types`: what they can
  be; `duplicates`: which rows of JSON may have a key twice; `names`: which names of columns are nearly others
- `cutting`: from files to shards
- `reading`: from a shard to columns of raw values; `encoding`: to the columns that members take, and rejected rows
- `answering`: from members' outputs to rows of results; `writing`: to a file
- `tables`: both, of a table in memory
- `tally`: what is counted in a shard, and how shards add up
- `claims`: which execution works on a run
- `summary`: the run as a whole; `drift`: how it differs from the one before; `cost`: what it took; `report`: to look
  at, with `charts`
- `results`: publishes all that, and says last that the run is whole
- `requests`: what a run is asked, and of which day; `timetable`: when a schedule asks next

Rows are never gone through one by one in Python, but for those that are rejected, to say why.
"""
