"""Serves HTTP on the loopback interface.

- `server`: reads requests and sends responses, as defined in `messages`
- `aws_endpoint`: the AWS APIs; `api_gateway`: the HTTP API
- `origins`: rejects requests of web pages; `uploads`: checks announced lengths and digests; `request_errors`: finds the
  mistake in a request at which moto fails
"""
