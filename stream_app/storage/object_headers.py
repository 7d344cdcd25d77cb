"""Makes the headers with which an object is uploaded: its name, its encryption and its metadata."""

import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import quote

from stream_app.storage.multipart_upload import Headers


def content_disposition(file_name: str) -> str:
    """Return the header (RFC 6266): an ASCII name for old clients, and the real name for the others."""
    plain = re.sub(r'[^ -~]|["\\/]', "_", file_name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(file_name, safe='')}"


def encryption_headers(sse: Literal["none", "s3", "kms"], kms_key: str | None) -> Headers:
    """Return the headers that ask a store to encrypt an object. Without ``kms_key`` it uses its own key."""
    if sse == "none":
        return {}
    if sse == "s3":
        return {"x-amz-server-side-encryption": "AES256"}
    named: Headers = {"x-amz-server-side-encryption-aws-kms-key-id": kms_key} if kms_key else {}
    return {"x-amz-server-side-encryption": "aws:kms", **named}


def metadata_headers(metadata: Mapping[str, str]) -> Headers:
    """Return the headers that store metadata with an object."""
    return {f"x-amz-meta-{name}": value for name, value in metadata.items()}
