"""Where things are kept: objects in S3, records in DynamoDB, and the layout of both.

- `objects`: one bucket, with the conditional writes everything else builds on
- `keys`: every object key there is
- `releases`: artifacts, releases and the pointer to the current one
- `records`: one item an execution
"""
