"""Secrets out of texts before they are written or said: passwords and signatures of URLs, keys of stores."""

from __future__ import annotations

import json
import re
from typing import TypeVar

T = TypeVar("T")

_HIDDEN = "***"
_PASSWORD = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s:@\"']*:[^/\s@\"']*@")
#: Parameters by which presigned URLs of S3, GCS, Azure, CloudFront and others let anybody in.
_SIGNATURE = re.compile(
    r"([?&](?:x-(?:amz|goog|oss)-(?:signature|credential|security-token)|signature|sig|awsaccesskeyid|"
    r"googleaccessid|key-pair-id|policy|token|access_token|auth|api_?key|password|secret)=)[^&\s\"'#<>)]+",
    re.IGNORECASE,
)
_SECRET = "key|secret|token|password|passwd|credential|authorization|connection_string"
_OPTION = re.compile(
    rf"""(["'][A-Za-z_.-]*(?:{_SECRET})[A-Za-z_-]*["']\s*:\s*)(["'])(?:(?!\2).)+\2""", re.IGNORECASE
)


def redact(text: str) -> str:
    """`text` without passwords in URLs, signatures of presigned ones, and values of JSON keys of secrets."""
    return _OPTION.sub(rf"\g<1>\g<2>{_HIDDEN}\g<2>", _without_url_secrets(text))


def redact_urls(value: T) -> T:
    """A JSON value whose URLs hold no secrets."""
    found: T = json.loads(_without_url_secrets(json.dumps(value, default=str)))
    return found


def _without_url_secrets(text: str) -> str:
    return _SIGNATURE.sub(rf"\g<1>{_HIDDEN}", _PASSWORD.sub(r"\1", text))
