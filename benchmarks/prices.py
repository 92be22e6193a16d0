"""AWS's list prices, in one place: us-east-1, x86, without free tiers, discounts and taxes.

A run computes its own cost from the same prices of Lambda and Step Functions (`stepensemble.batch.report.cost`). All
were read on the given date in stored copies of pages of AWS and others, not on a bill. SageMaker's page shows prices
only with a script; its prices are from aws-samples/sagemaker-serverless-inference-benchmarking.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from stepensemble.batch.report.cost import GB_SECOND, REQUEST, TRANSITION

LOOKED_UP = "2026-11-21"


class Price(Struct, frozen=True):
    """Dollars for one unit."""

    unit: str
    dollars: float
    source: str


LAMBDA_TIME = Price(
    "GB-second of Lambda, the first 6 billion a month", GB_SECOND, "https://aws.amazon.com/lambda/pricing/"
)
LAMBDA_REQUEST = Price("request to Lambda", REQUEST, "https://aws.amazon.com/lambda/pricing/")
STATE_TRANSITION = Price("state transition, STANDARD", TRANSITION, "https://aws.amazon.com/step-functions/pricing/")
S3_WRITE = Price("PUT, COPY or LIST of S3 Standard", 0.005 / 1e3, "https://aws.amazon.com/s3/pricing/")
S3_READ = Price("GET of S3 Standard", 0.0004 / 1e3, "https://aws.amazon.com/s3/pricing/")


PRICES = (LAMBDA_TIME, LAMBDA_REQUEST, STATE_TRANSITION, S3_WRITE, S3_READ)
"""Prices of the batch."""

EXPRESS_REQUEST = Price("request of an EXPRESS execution", 1.0 / 1e6, "https://aws.amazon.com/step-functions/pricing/")
EXPRESS_TIME = Price(
    "GB-second of an EXPRESS execution, the first 1,000 GB-hours a month",
    0.06 / 3600,
    "https://aws.amazon.com/step-functions/pricing/",
)
DYNAMODB_WRITE = Price(
    "write of 1 KB to DynamoDB, on demand", 0.625 / 1e6, "https://aws.amazon.com/dynamodb/pricing/on-demand/"
)
TRACE = Price("trace of X-Ray", 5.0 / 1e6, "https://aws.amazon.com/xray/pricing/")
LOG_GIGABYTE = Price("GB of logs to CloudWatch", 0.50, "https://aws.amazon.com/cloudwatch/pricing/")
ENDPOINT_HOUR = Price(
    "hour of ml.t2.medium, SageMaker real-time", 0.056, "https://aws.amazon.com/sagemaker-ai/pricing/"
)
SERVERLESS_SECOND = Price(
    "second of SageMaker Serverless Inference with 2 GB", 0.00004, "https://aws.amazon.com/sagemaker-ai/pricing/"
)
SAGEMAKER_GIGABYTE = Price(
    "GB in requests to SageMaker, or in its responses", 0.016, "https://aws.amazon.com/sagemaker-ai/pricing/"
)

ONLINE_PRICES = (
    LAMBDA_TIME,
    LAMBDA_REQUEST,
    STATE_TRANSITION,
    EXPRESS_REQUEST,
    EXPRESS_TIME,
    S3_READ,
    DYNAMODB_WRITE,
    TRACE,
    LOG_GIGABYTE,
    ENDPOINT_HOUR,
    SERVERLESS_SECOND,
    SAGEMAKER_GIGABYTE,
)
"""Prices of executions, and of the alternatives."""


def format_prices(prices: Sequence[Price] = PRICES) -> str:
    """Return the prices as a Markdown table."""
    lines = ["| price | dollars for a million | source |", "| --- | --: | --- |"]
    lines += [f"| {price.unit} | {_millions(price)} | <{price.source}> |" for price in prices]
    return "\n".join(lines) + f"\n\nList prices of us-east-1, looked up {LOOKED_UP}.\n"


def _millions(price: Price) -> str:
    millions = price.dollars * 1e6
    return f"{millions:,.0f}" if millions >= 1e4 else f"{millions:,.4g}"
