"""AWS's list prices, in one place: us-east-1, x86, without free tiers, discounts and taxes.

Prices of Lambda and Step Functions are those by which a run's own cost is reckoned (`stepensemble.batch.cost`). All
were looked up in stored copies of AWS's and others' pages, on the date given, not on a bill.
"""

from __future__ import annotations

from msgspec import Struct

from stepensemble.batch.cost import GB_SECOND, REQUEST, TRANSITION

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


def format_prices() -> str:
    """Return the prices as a Markdown table."""
    lines = ["| price | dollars for a million | source |", "| --- | --: | --- |"]
    lines += [f"| {price.unit} | {price.dollars * 1e6:,.4g} | <{price.source}> |" for price in PRICES]
    return "\n".join(lines) + f"\n\nList prices of us-east-1, looked up {LOOKED_UP}.\n"
