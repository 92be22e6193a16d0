"""From files to encoded rows.

- `datasets`: lists a dataset's files and reads their headers; `column_names`: finds names that are nearly another
- `text_stream`: decompresses and decodes text; `csv_records`: finds where records begin and end
- `parquet_footer`: finds columns and row groups; `parquet_types`: which types are supported
- `sharding`: splits files into shards
- `shard_reader`: reads a shard to columns of raw values; `repeated_keys`: finds JSON rows that may repeat a key
- `frame_encoder`: validates and encodes the columns, and rejects rows
- `labels`: reads the column of labels
"""
