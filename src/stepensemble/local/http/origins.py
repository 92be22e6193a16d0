"""Who may use the local stack: programs on this machine, but not pages of other origins in a user's browser.

A page of any site can have a browser send requests to the loopback interface. Forms and images need no consent of the
server. With DNS rebinding (a name of the attacker's that suddenly resolves to 127.0.0.1) a page can read the responses
too. The headers `Origin` and `Sec-Fetch-Site` reveal the first, since browsers set them and pages cannot
(https://www.w3.org/TR/fetch-metadata/). The header `Host` reveals the second: it then has the attacker's name.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address

from stepensemble.local.http.messages import RequestHead, RequestRejected

OWN_SITES = frozenset({"", "none", "same-origin"})
"""Values of `Sec-Fetch-Site` if no other page has sent the request; "" if the client is not a browser."""

AUTHORITY = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^:\[\]@/\\]+)(:\d{1,5})?", flags=re.IGNORECASE)


def check_origin(head: RequestHead) -> None:
    """Check that a request comes from a program on this machine, or from a page served here.

    Raises:
        RequestRejected: 403; the message has the header, its value and the remedy.
    """
    fields = head.fields
    host = fields.get("host", "")
    if not is_loopback(host):
        raise _forbid("Host", host, "the local stack serves 127.0.0.1, [::1] and localhost only; use one of these")
    origin = fields.get("origin")
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        raise _forbid("Origin", origin, "pages of other origins may not use the local stack; use a program instead")
    site = fields.get("sec-fetch-site", "")
    if site.lower() not in OWN_SITES:
        raise _forbid("Sec-Fetch-Site", site, "other pages may not use the local stack; open the address directly")


@lru_cache(maxsize=256)
def is_loopback(authority: str) -> bool:
    """Return whether a host, with or without a port, is this machine by its name alone.

    These are addresses of 127.0.0.0/8, ::1, `localhost` and names below it (RFC 6761), such as `things.localhost`, with
    which S3's clients address a bucket. Only pages that are served on this machine have such a name.
    """
    found = AUTHORITY.fullmatch(authority)
    if found is None:
        return False
    host = found["host"].lower().removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _forbid(header: str, value: str, remedy: str) -> RequestRejected:
    return RequestRejected(403, "AccessDenied", f'{header} is "{value[:80]}"; {remedy}')
