"""Webhooks: the history itself is the outbox, and each webhook has a cursor in it.

A change-set is written in the transaction of its change, without gaps and for good, so that nothing can be lost between
a commit and its delivery: whichever process comes next goes on after the cursor.
"""

from __future__ import annotations

from rheostat.service.webhook.sender import Attempt, HttpSender, Sender
from rheostat.service.webhook.webhook import Webhooks

__all__ = ["Attempt", "HttpSender", "Sender", "Webhooks"]
