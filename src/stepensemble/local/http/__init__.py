"""Serves HTTP on the loopback interface.

- `server`: reads requests and sends responses, in the terms of `messages`
- `aws_endpoint`: the AWS APIs; `api_gateway`: the HTTP API
- `origins`: refuses requests of web pages; `uploads`: checks announced digests; `request_errors`: finds what is wrong
  with a request at which moto fails
"""
