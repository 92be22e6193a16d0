"""Who may use the local stack: programs on this machine, and no page of another origin in somebody's browser.

A page of any site can have a browser send requests to the loopback interface. For a form or an image the server need
not agree, and by DNS rebinding (a name of the attacker's that suddenly resolves to 127.0.0.1) a page can read the
answers too. Against the first there are the headers `Origin` and `Sec-Fetch-Site`, which browsers set and pages cannot
(https://www.w3.org/TR/fetch-metadata/); against the second the header `Host`, which then has the attacker's name.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address

from stepensemble.local.http.messages import Refused, RequestHead

OWN_SITES = frozenset({"", "none", "same-origin"})
"""What `Sec-Fetch-Site` says where no other page is behind a request; "" where the client is no browser."""

AUTHORITY = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^:\[\]@/\\]+)(:\d{1,5})?", flags=re.IGNORECASE)


def check_origin(head: RequestHead) -> None:
    """Make sure that a request comes from a program on this machine, or from no other page than one served here.

    Raises:
        Refused: 403; the message names the header, its value and what to do.
    """
    fields = head.fields
    host = fields.get("host", "")
    if not is_loopback(host):
        raise _forbid("Host", host, "the local stack answers to 127.0.0.1, [::1] and localhost only; use one of these")
    origin = fields.get("origin")
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        raise _forbid("Origin", origin, "pages of other origins may not use the local stack; use a program instead")
    site = fields.get("sec-fetch-site", "")
    if site.lower() not in OWN_SITES:
        raise _forbid("Sec-Fetch-Site", site, "other pages may not use the local stack; open the address by itself")


@lru_cache(maxsize=256)
def is_loopback(authority: str) -> bool:
    """Say whether a host, with a port or without, is this machine by its name alone.

    That is an address of 127.0.0.0/8, ::1, `localhost` and names below it (RFC 6761), such as `things.localhost`, by
    which S3's clients name a bucket. No page can have such a name but one that is served on this machine.
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


def _forbid(header: str, value: str, remedy: str) -> Refused:
    return Refused(403, "AccessDenied", f'{header} is "{value[:80]}"; {remedy}')
