"""Files and texts that are sent compressed. They hold no secrets, so their size tells nothing (BREACH)."""

import gzip
import hashlib
import os
import re
from functools import lru_cache
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.types import Scope

_WEIGHT = re.compile(r"\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*")
"""The weight of an encoding (RFC 9110, section 12.4.2). One in another form counts as 0."""


@lru_cache(maxsize=64)
def _compressed(path: str, modified: float) -> bytes:
    """Return the file as gzip. Each version of a file is compressed once."""
    del modified
    return gzip.compress(Path(path).read_bytes(), mtime=0)


def accepts_gzip(accepted: str) -> bool:
    """Return whether a value of ``Accept-Encoding`` allows gzip (RFC 9110, section 12.5.3)."""
    quality: dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, has_weight, parameters = part.partition(";")
        weight = _WEIGHT.fullmatch(parameters) if has_weight else None
        quality[name.strip()] = float(weight[1]) if weight else 0.0 if has_weight else 1.0
    return quality.get("gzip", quality.get("*", 0)) > 0


def compressed_response(
    path: str | os.PathLike[str],
    scope: Scope,
    headers: dict[str, str],
    stat_result: os.stat_result | None = None,
) -> Response:
    """Return the file, as gzip if the client accepts that, with ``headers``.

    The two forms have different ETags, and caches must keep them apart (``Vary``).
    """
    known = stat_result or os.stat(path)
    plain = FileResponse(path, headers=headers | {"Vary": "Accept-Encoding"}, stat_result=known)
    if not accepts_gzip(Headers(scope=scope).get("Accept-Encoding", "")):
        return plain
    response = Response(_compressed(os.fspath(path), known.st_mtime), media_type=plain.media_type)
    for name, value in plain.headers.items():
        if name not in ("content-length", "etag", "accept-ranges"):
            response.headers[name] = value
    response.headers["Content-Encoding"] = "gzip"
    response.headers["ETag"] = plain.headers["etag"].removesuffix('"') + '-gzip"'
    return response


def compressed_content(content: bytes, media_type: str, scope: Scope, headers: dict[str, str]) -> Response:
    """Return a content that is made here as a file is: as gzip if the client accepts that, or as 304.

    ``headers`` can have a ``Vary`` of its own.
    """
    request = Headers(scope=scope)
    small = accepts_gzip(request.get("Accept-Encoding", ""))
    digest = hashlib.sha256(content).hexdigest()[:32]
    etag = f'"{digest}-gzip"' if small else f'"{digest}"'
    vary = ", ".join(filter(None, ["Accept-Encoding", headers.get("Vary")]))
    own = headers | {"ETag": etag, "Vary": vary}
    known = {tag.strip().removeprefix("W/") for tag in request.get("If-None-Match", "").split(",")}
    if etag in known or "*" in known:
        return Response(status_code=304, headers=own)
    if not small:
        return Response(content, headers=own, media_type=media_type)
    return Response(
        _compressed_content(content), headers=own | {"Content-Encoding": "gzip"}, media_type=media_type
    )


@lru_cache(maxsize=64)
def _compressed_content(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)
