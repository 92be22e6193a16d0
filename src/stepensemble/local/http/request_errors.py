"""Finds the mistake in a request to AWS's APIs at which moto fails, where AWS would name the mistake.

moto reads requests as AWS's own clients write them, and raises arbitrary exceptions at others. Only then is the request
checked here, so that the checks cost a valid request nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import parse_qs
from xml.parsers.expat import ExpatError

from botocore.exceptions import UnknownServiceError
from botocore.loaders import Loader
from botocore.model import OperationNotFoundError, ServiceModel
from botocore.validate import ParamValidator

from stepensemble.local.http.messages import RequestHead, RequestRejected

SERVICES: Mapping[str, str] = {
    "AWSEvents": "events",
    "AWSStepFunctions": "stepfunctions",
    "DynamoDB_20120810": "dynamodb",
    "Logs_20140328": "logs",
}
"""botocore's names of services, by the prefix of their targets."""

JSON_SERVICES = frozenset({"dynamodb", "events", "logs", "states"})
"""The same services under the names in credential scopes."""

INTEGER_PARAMETERS = ("max-keys", "max-parts", "max-uploads", "partNumber", "part-number-marker")
"""Parameters of S3."""

POST_PARAMETERS = frozenset({"delete", "uploads", "uploadId", "select", "restore"})
"""Query parameters that name the operation of a POST to S3."""

SCOPE_PARTS = 5
MESSAGE_LENGTH = 1000


def find_request_error(fault: Exception, head: RequestHead, body: bytes) -> RequestRejected | None:
    """Return the mistake in a request at which moto failed; None if none is found.

    Args:
        fault: the exception that moto raised.
        head: of the request.
        body: of the request.
    """
    target = head.fields.get("x-amz-target")
    if target is not None:
        return _check_call(target, body)
    authorization = head.fields.get("authorization", "")
    service = _read_service(authorization)
    if authorization and service is None:
        message = "the Authorization header has no credential scope of the form key/date/region/service/aws4_request"
        return RequestRejected(400, "AuthorizationHeaderMalformed", message)
    if service in JSON_SERVICES:
        return RequestRejected(400, "MissingAction", "the header X-Amz-Target is missing, which names the operation")
    if service not in {None, "s3"} and isinstance(fault, AttributeError) and not _is_known(str(service)):
        return RequestRejected(
            400, "UnknownServiceException", "the credential scope names a service that is unknown here"
        )
    if isinstance(fault, OperationNotFoundError):
        return RequestRejected(400, "InvalidAction", "the service has no such action")
    if service not in {None, "s3"}:
        return (
            None
            if _is_object(body)
            else RequestRejected(400, "SerializationException", "the body is not a JSON object")
        )
    return _check_s3(fault, head)


def _check_call(target: str, body: bytes) -> RequestRejected | None:
    """Check a request in JSON against the service's model in botocore."""
    prefix, point, operation = target.rpartition(".")
    model = _load_model(SERVICES[prefix]) if prefix in SERVICES else None
    if not point or (model is not None and operation not in model.operation_names):
        return RequestRejected(
            400, "UnknownOperationException", "the header X-Amz-Target names no operation of the service"
        )
    if body and not _is_object(body):
        return RequestRejected(400, "SerializationException", "the body is not a JSON object")
    shape = None if model is None else model.operation_model(operation).input_shape
    if shape is None:
        return None
    report = ParamValidator().validate(json.loads(body or b"{}"), shape)
    if report.has_errors():
        return RequestRejected(400, "ValidationException", report.generate_report()[:MESSAGE_LENGTH])
    return None


def _check_s3(fault: Exception, head: RequestHead) -> RequestRejected | None:
    query = parse_qs(head.query, keep_blank_values=True)
    if isinstance(fault, ExpatError):
        return RequestRejected(400, "MalformedXML", "the body is not well-formed XML")
    for name in INTEGER_PARAMETERS:
        if not all(value.isascii() and value.isdigit() for value in query.get(name, ())):
            return RequestRejected(400, "InvalidArgument", f"{name} is not a whole number")
    if head.method == "POST" and not POST_PARAMETERS & query.keys():
        return RequestRejected(400, "InvalidArgument", 'a POST to a bucket is a form with a field named "key"; use PUT')
    return None


def _read_service(authorization: str) -> str | None:
    """Return the service in a signature's credential scope; None if there is none."""
    scope = authorization.partition("Credential=")[2].partition(",")[0].split("/")
    return scope[3] if len(scope) == SCOPE_PARTS else None


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


def _is_known(service: str) -> bool:
    try:
        _load_model(service)
    except UnknownServiceError:
        return False
    return True


@lru_cache(maxsize=8)
def _load_model(service: str) -> ServiceModel:
    return ServiceModel(Loader(include_default_search_paths=True).load_service_model(service, "service-2"), service)
