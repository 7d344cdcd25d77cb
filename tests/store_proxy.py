"""A proxy in front of the real object store, which behaves like other stores."""

import http.client
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.waiting import WITHIN, patient


@dataclass(frozen=True)
class Request:
    """A request to the store; names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def call(self) -> str:
        """The name of the call in S3."""
        if self.method == "POST":
            return "create" if "uploads" in self.path.partition("?")[2].split("&")[0] else "complete"
        if self.method == "PUT":
            return "part" if "partNumber" in self.path else "copy" if self.is_copy else "put"
        return {"GET": "list", "HEAD": "head", "DELETE": "abort" if "uploadId" in self.path else "delete"}[
            self.method
        ]

    @property
    def is_copy(self) -> bool:
        """Whether the request copies an object."""
        return "x-amz-copy-source" in self.headers


Rule = Callable[[Request], tuple[int, str] | None]


class Proxy(ThreadingHTTPServer):
    """Forwards requests, or refuses them with ``status`` and ``code``, and counts refusals."""

    daemon_threads = True
    status: int | None = None
    code = ""
    date: str | None = None
    hang_up = False
    refused = 0
    methods: tuple[str, ...] = ("GET", "HEAD", "PUT", "POST", "DELETE")
    rule: Rule | None = None
    """Returns the status and the code with which a request is refused, or ``None``."""
    dropped: tuple[str, ...] = ()
    """Headers that are not forwarded, in lower case."""
    deaf_to: Callable[[Request], bool] | None = None
    """Selects requests that are forwarded, but whose answers are lost."""

    def __init__(self, target: str) -> None:
        self.target = urlsplit(target).netloc
        self.seen: list[Request] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Write no log."""

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy = self.server
        if self.command in proxy.methods and proxy.hang_up:
            proxy.refused += 1
            self.close_connection = True
            return
        if self.command in proxy.methods and proxy.status is not None:
            proxy.refused += 1
            content = f"<?xml version='1.0'?><Error><Code>{proxy.code}</Code><Message>no</Message></Error>"
            self._answer(proxy.status, [("Content-Type", "application/xml")], content.encode())
            return
        request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        proxy.seen.append(request)
        if proxy.rule is not None and (refusal := proxy.rule(request)) is not None:
            proxy.refused += 1
            status, code = refusal
            content = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
            self._answer(status, [("Content-Type", "application/xml")], content.encode())
            return
        passed = {k: v for k, v in self.headers.items() if k.lower() not in proxy.dropped}
        with closing(http.client.HTTPConnection(proxy.target, timeout=patient(WITHIN))) as onward:
            onward.request(self.command, self.path, body, passed)
            answer = onward.getresponse()
            found = answer.read()
        if proxy.deaf_to is not None and proxy.deaf_to(request):
            self.close_connection = True
            return
        headers = [
            (name, value)
            for name, value in answer.getheaders()
            if name not in ("Transfer-Encoding", "Connection")
        ]
        self._answer(answer.status, headers, found)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name not in ("Content-Length", "Date"):
                self.send_header(name, value)
        self.send_header("Date", self.server.date or self.date_time_string())
        length = dict(headers).get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass
