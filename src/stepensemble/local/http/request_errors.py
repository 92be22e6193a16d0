"""What is wrong with a request to AWS's APIs at which moto fails, where AWS would name the mistake.

moto reads requests as AWS's own clients write them. Of others it raises whatever reading them comes to; so that nothing
of this costs a request which is right, only then is the request looked at.
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

from stepensemble.local.http.messages import Refused, RequestHead

SERVICES: Mapping[str, str] = {
    "AWSEvents": "events",
    "AWSStepFunctions": "stepfunctions",
    "DynamoDB_20120810": "dynamodb",
    "Logs_20140328": "logs",
}
"""Services by the prefix of their targets, as botocore calls them."""

TARGETED = frozenset({"dynamodb", "events", "logs", "states"})
"""The same, as credential scopes call them."""

WHOLE_NUMBERS = ("max-keys", "max-parts", "max-uploads", "partNumber", "part-number-marker")
"""Parameters of S3."""

POSTS = frozenset({"delete", "uploads", "uploadId", "select", "restore"})
"""What a POST to S3 is for, as the query names it."""

SCOPE_PARTS = 5
MESSAGE_LENGTH = 1000


def find_mistake(fault: Exception, head: RequestHead, body: bytes) -> Refused | None:
    """Return what is wrong with a request that moto failed at; None where nothing is known to be.

    Args:
        fault: what moto raised.
        head: of the request.
        body: of it.
    """
    target = head.fields.get("x-amz-target")
    if target is not None:
        return _check_call(target, body)
    authorization = head.fields.get("authorization", "")
    service = _read_service(authorization)
    if authorization and service is None:
        message = "the Authorization header has no credential scope of the form key/date/region/service/aws4_request"
        return Refused(400, "AuthorizationHeaderMalformed", message)
    if service in TARGETED:
        return Refused(400, "MissingAction", "the header X-Amz-Target is missing, which names the operation")
    if service not in {None, "s3"} and isinstance(fault, AttributeError) and not _is_known(str(service)):
        return Refused(400, "UnknownServiceException", "the credential scope names a service that is unknown here")
    if isinstance(fault, OperationNotFoundError):
        return Refused(400, "InvalidAction", "the service has no such action")
    if service not in {None, "s3"}:
        return None if _is_object(body) else Refused(400, "SerializationException", "the body is no JSON object")
    return _check_s3(fault, head)


def _check_call(target: str, body: bytes) -> Refused | None:
    """Check a call in JSON against the service's own model, which botocore brings."""
    prefix, point, operation = target.rpartition(".")
    model = _load_model(SERVICES[prefix]) if prefix in SERVICES else None
    if not point or (model is not None and operation not in model.operation_names):
        return Refused(400, "UnknownOperationException", "the header X-Amz-Target names no operation of the service")
    if body and not _is_object(body):
        return Refused(400, "SerializationException", "the body is no JSON object")
    shape = None if model is None else model.operation_model(operation).input_shape
    if shape is None:
        return None
    report = ParamValidator().validate(json.loads(body or b"{}"), shape)
    if report.has_errors():
        return Refused(400, "ValidationException", report.generate_report()[:MESSAGE_LENGTH])
    return None


def _check_s3(fault: Exception, head: RequestHead) -> Refused | None:
    query = parse_qs(head.query, keep_blank_values=True)
    if isinstance(fault, ExpatError):
        return Refused(400, "MalformedXML", "the body is no well-formed XML")
    for name in WHOLE_NUMBERS:
        if not all(value.isascii() and value.isdigit() for value in query.get(name, ())):
            return Refused(400, "InvalidArgument", f"{name} is no whole number")
    if head.method == "POST" and not POSTS & query.keys():
        return Refused(400, "InvalidArgument", 'a POST to a bucket is a form with a field named "key"; use PUT')
    return None


def _read_service(authorization: str) -> str | None:
    """Return the service of a signature's credential scope; None where there is none in it."""
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
