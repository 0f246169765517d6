"""Python types of declared settings: how their values travel, and what is done about a server's that do not fit."""

from __future__ import annotations

from rheostat.sdk.codec.base import Codec, Coerced, Coercion
from rheostat.sdk.codec.lookup import codec_for

__all__ = ["Codec", "Coerced", "Coercion", "codec_for"]
