"""What a client is made with is checked when it is made, and no error shows a secret."""

from __future__ import annotations

from typing import Any

import pytest

from rheostat import AsyncClient, Client, InvalidArgumentError

URL = "http://127.0.0.1:1"
SECRET = "rst_server_SECRET"


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_whitespace_around_a_key_does_not_count(kind: type[Any], monkeypatch: pytest.MonkeyPatch):
    assert kind(URL, key=f" {SECRET}\r\n")._core.call_headers()["authorization"] == f"Bearer {SECRET}"
    monkeypatch.setenv("RHEOSTAT_KEY", f"{SECRET}\n")
    assert kind(URL)._core.call_headers()["authorization"] == f"Bearer {SECRET}"
    assert "authorization" not in kind(URL, key=" \n")._core.call_headers()


@pytest.mark.parametrize(
    "key", [f"{SECRET}\n{SECRET}", f"{SECRET}\u2026", f"{SECRET}\x00", SECRET.encode(), 5]
)
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key: Any):
    with pytest.raises(InvalidArgumentError, match="the option key") as raised:
        Client(URL, key=key)
    assert "SECRET" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    "headers",
    [
        {"x-token": f"{SECRET}\r\nx: y"},
        {"x-token": f"{SECRET}\u2026"},
        {"x-token": SECRET.encode()},
        {"x-token": None},
    ],
)
def test_a_header_that_cannot_be_sent_is_refused_and_not_shown(headers: dict[str, Any]):
    with pytest.raises(InvalidArgumentError, match="the option headers, 'x-token',") as raised:
        Client(URL, headers=headers)
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize("name", ["", "x token", "x:", "x\n", 5])
def test_a_header_s_name_is_a_token(name: Any):
    with pytest.raises(InvalidArgumentError, match="which no header can have"):
        Client(URL, headers={name: "1"})


def test_headers_are_sent_without_surrounding_whitespace():
    assert Client(URL, headers={"x-team": "checkout\n"})._core.call_headers() == {"x-team": "checkout"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retries": -1}, "the option retries is -1"),
        ({"retries": 1.5}, "the option retries is 1.5"),
        ({"backoff": (30.0, 1.0)}, "the option backoff"),
        ({"url": "http://[bad"}, "url, cannot be used"),
        ({"url": "http://127.0.0.1:99999"}, "url, cannot be used"),
        ({"url": "http://127.0.0.1:port"}, "url, cannot be used"),
        ({"url": "https://"}, "url, has no host"),
        ({"url": "https:///path"}, "url, has no host"),
        ({"url": "http://config.example\nx"}, "url, holds whitespace"),
        ({"url": "ftp://config.example"}, "does not begin with http"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], message: str):
    with pytest.raises(InvalidArgumentError, match=message):
        Client(**{"url": URL, **options})


@pytest.mark.parametrize(
    "url", ["http://[::1]:7420", "https://config.example/base", "http://u:p@config.example"]
)
def test_addresses_of_all_kinds_are_taken(url: str):
    assert Client(f" {url}/\n")._core.options.url == url
