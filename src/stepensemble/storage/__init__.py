"""Where things are kept: objects in S3, records in DynamoDB, events in CloudWatch Logs, and the layout of them.

- `objects`: one bucket, with the conditional writes everything else builds on
- `keys`: every object key there is
- `releases`: artifacts, releases and the pointer to the current one
- `records`: one item an execution
- `reviews`: the events that ask for a review, in CloudWatch Logs
"""
