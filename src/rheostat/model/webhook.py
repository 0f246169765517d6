"""Webhooks: addresses that are told of each change-set, and what became of what they were told."""

from __future__ import annotations

import base64
import datetime
import enum
import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from rheostat.errors import FieldViolation, InvalidArgumentError

__all__ = [
    "Delivery",
    "DeliveryState",
    "Webhook",
    "WebhookStatus",
    "checked_url",
    "is_public",
    "make_webhook_secret",
]

_PRINTABLE: Final = re.compile(r"[!-~]+")

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""Addresses of IPv4 behind a translator (RFC 6052)."""

_NOT_PUBLIC: Final = (
    # Site-local (RFC 3879), for documentation (RFC 9637).
    ipaddress.IPv6Network("fec0::/10"),
    ipaddress.IPv6Network("3fff::/20"),
    # Relays of 6to4 (RFC 7526), and the address at which a cloud's machines reach its own services.
    ipaddress.IPv4Network("192.88.99.0/24"),
    ipaddress.IPv4Network("168.63.129.16/32"),
)
"""Ranges that Python takes, in some version or in all, for ones of the public internet."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook as the history holds it: never its secret, which rests in a record beside it.

    Attributes:
        id: Given by the server.
        project: The slug of its project.
        url: Where changes are sent.
        environments: Only change-sets that touch one of these, or something project-wide; empty means all.
        description: For people.
        enabled: Whether it is sent anything.
        created_revision: The revision that made it; it is told of what comes after that.
        secret_revision: The revision that made its newest secret.
        revision: The newest revision that changed it.
    """

    id: str
    project: str
    url: str
    environments: tuple[str, ...] = ()
    description: str = ""
    enabled: bool = True
    created_revision: int = 0
    secret_revision: int = 0
    revision: int = 0


@dataclass(frozen=True, slots=True)
class WebhookStatus:
    """How far a webhook has got.

    Attributes:
        delivered_revision: The newest revision that it has been told of.
        failures: How many attempts have failed since the last success.
        next_attempt_at: When the next attempt is made; None when it is not waited for.
        disabled_reason: Why the server has disabled it; empty when it has not.
        old_secret_until: Until when its last secret signs beside the new one; None when there is none.
    """

    delivered_revision: int = 0
    failures: int = 0
    next_attempt_at: datetime.datetime | None = None
    disabled_reason: str = ""
    old_secret_until: datetime.datetime | None = None


class DeliveryState(enum.Enum):
    """Where a delivery stands."""

    RETRYING = "retrying"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that was sent to a webhook, or is being sent.

    Attributes:
        id: The header ``webhook-id``, the same at every attempt.
        type: ``change_set.committed`` or ``webhook.test``.
        revision: The revision that it tells of; 0 for a test.
        state: Where it stands.
        attempts: How many were made.
        attempted_at: When the last one was made, aware, UTC.
        status: The HTTP status of the last one; 0 when there was no answer.
        error: What went wrong in the last one; empty when nothing did.
    """

    id: str
    type: str
    revision: int
    state: DeliveryState
    attempts: int
    attempted_at: datetime.datetime
    status: int = 0
    error: str = ""


def make_webhook_secret(randomness: bytes) -> str:
    """Return a secret, ``whsec_...``, of 32 random bytes."""
    if len(randomness) != 32:
        raise ValueError("a secret takes 32 random bytes")
    return f"whsec_{base64.b64encode(randomness).decode()}"


def checked_url(url: str, *, allow_private: bool = False) -> str:
    """Return *url*, which a webhook is to have.

    The addresses that its name leads to are not looked up here: they are checked at each delivery.

    Args:
        url: An absolute URL.
        allow_private: Take http, and addresses of private networks.

    Raises:
        InvalidArgumentError: It is none that messages can be sent to; the violation names ``url``.
    """
    if not _PRINTABLE.fullmatch(url):
        raise _invalid("has characters that no URL has; encode them as %XX, and names as xn--")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _invalid("is no URL") from None
    if parts.scheme not in (("https", "http") if allow_private else ("https",)):
        raise _invalid(
            "is neither https:// nor http://" if allow_private else "does not begin with https://",
        )
    if not parts.hostname:
        raise _invalid("names no host")
    if parts.username is not None or parts.password is not None:
        raise _invalid("holds credentials; a receiver knows the sender by the signature")
    if parts.fragment:
        raise _invalid("has a fragment, which is never sent")
    if port == 0:
        raise _invalid("has no port that can be connected to")
    if not allow_private and _is_private_host(parts.hostname):
        raise _invalid("leads to this machine or a private network, which this server does not allow")
    return url


def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the public internet, also where it only wraps another one."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        wrapped: list[ipaddress.IPv4Address | None] = [found.ipv4_mapped, found.sixtofour]
        if found.teredo is not None:
            wrapped += found.teredo
        if found in _NAT64:
            wrapped.append(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF))
        inner = [each for each in wrapped if each is not None]
        if inner:
            return all(_is_public(each) for each in inner)
    return _is_public(found)


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    # Each version of Python knows other ranges, so that one property alone would not do.
    if any(address in network for network in _NOT_PUBLIC if network.version == address.version):
        return False
    return address.is_global and not (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )


def _is_private_host(host: str) -> bool:
    if host == "localhost" or host.endswith((".localhost", ".localhost.")):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return not is_public(host)


def _invalid(description: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"url: {description}", violations=[FieldViolation("url", description)], reason="INVALID_URL"
    )
