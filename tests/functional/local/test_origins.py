"""Who may use the local stack, by the headers of a request."""

from __future__ import annotations

import pytest

from stepensemble.local.http.messages import RequestHead, RequestRejected
from stepensemble.local.http.origins import check_origin, is_loopback

LOOPBACK = (
    "127.0.0.1",
    "127.0.0.1:8501",
    "127.1.2.3:80",
    "[::1]",
    "[::1]:8501",
    "localhost",
    "LocalHost:8501",
    "localhost.",
    "things.localhost:4566",
    "things.s3.localhost",
)
FOREIGN = (
    "",
    "x",
    "example.com",
    "example.com:8501",
    "localhost.example.com",
    "notlocalhost",
    "127.0.0.1.example.com",
    "127.0.0.1@example.com",
    "127.0.0.1, example.com",
    "0.0.0.0",  # noqa: S104 (nothing is bound)
    "10.0.0.1",
    "127.1",
    "2130706433",
    "[::]",
    "[::ffff:10.0.0.1]",
    "[::1",
    "192.168.0.2:80",
    "things.s3.amazonaws.com",
    "localhost:port",
)


@pytest.mark.parametrize("authority", LOOPBACK)
def test_every_name_of_this_machine_is_accepted(authority: str) -> None:
    assert is_loopback(authority)


@pytest.mark.parametrize("authority", FOREIGN)
def test_any_other_name_is_rejected_as_it_may_be_an_attackers(authority: str) -> None:
    assert not is_loopback(authority)


def head(**headers: str) -> RequestHead:
    named = tuple((name.replace("_", "-"), value) for name, value in {"Host": "127.0.0.1:8501", **headers}.items())
    return RequestHead("POST", "/predict", named)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "things.localhost"},
        {"Origin": "http://127.0.0.1:8501"},
        {"Origin": "http://127.0.0.1:8501", "Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "none"},
    ],
)
def test_programs_and_pages_served_here_are_accepted(headers: dict[str, str]) -> None:
    check_origin(head(**headers))


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"Host": "rebound.example.com:8501"}, 'Host is "rebound.example.com:8501"'),
        ({"Origin": "https://example.com"}, 'Origin is "https://example.com"'),
        ({"Origin": "null"}, 'Origin is "null"'),
        ({"Origin": "http://127.0.0.1:9999"}, 'Origin is "http://127.0.0.1:9999"'),
        ({"Origin": "https://127.0.0.1:8501"}, 'Origin is "https://127.0.0.1:8501"'),
        ({"Origin": ""}, 'Origin is ""'),
        ({"Sec_Fetch_Site": "cross-site"}, 'Sec-Fetch-Site is "cross-site"'),
        ({"Sec_Fetch_Site": "same-site"}, 'Sec-Fetch-Site is "same-site"'),
        ({"Sec_Fetch_Site": "Cross-Site, none"}, "Sec-Fetch-Site is"),
    ],
)
def test_any_other_page_is_rejected_with_the_header_and_the_remedy(headers: dict[str, str], named: str) -> None:
    with pytest.raises(RequestRejected) as rejected:
        check_origin(head(**headers))
    assert rejected.value.status == 403
    assert str(rejected.value).startswith(named)
    assert "; " in str(rejected.value)


def test_the_host_of_a_target_overrides_the_header() -> None:
    with pytest.raises(RequestRejected):
        check_origin(RequestHead("GET", "http://example.com/", (("Host", "localhost"),)))
    check_origin(RequestHead("GET", "http://localhost/", (("Host", "example.com"),)))
