"""What is written or said holds no key, password or signature; what is no secret stays as it is."""

from __future__ import annotations

import json

import pytest

from sspsam.storage.secrets import redact, redact_urls


@pytest.mark.parametrize(
    "text",
    [
        "https://user:HUSH@host/a.tar: no such file",
        "s3://key:HUSH@bucket/in and ftp://u:HUSH@h",
        "https://b.s3.amazonaws.com/a.jpg?X-Amz-Credential=HUSH%2F1&X-Amz-Signature=HUSH (a.jpg)",
        "https://x.blob.core.windows.net/c/a?sv=2020&sig=HUSH",
        "https://d.cloudfront.net/a?Policy=HUSH&Signature=HUSH&Key-Pair-Id=HUSH",
        '{"key": "HUSH", "secret": "HUSH", "client_kwargs": {"aws_access_key_id": "HUSH"}}',
        "{'headers': {'Authorization': 'Bearer HUSH'}, 'connection_string': 'A=b;HUSH'}",
    ],
)
def test_secrets_are_taken_out(text: str) -> None:
    assert "HUSH" not in redact(text)
    if "://" in text:
        assert "HUSH" not in json.dumps(redact_urls([{"url": text}]))


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a@b.tar",
        "https://host/a?page=2&sort=key",
        "ssh://me@host/a",
        "a key: 12",
        "x://h/p?q=1#t",
    ],
)
def test_the_rest_stays(text: str) -> None:
    assert redact(text) == text
    assert redact_urls({"a": text, "key": "000001"}) == {"a": text, "key": "000001"}
