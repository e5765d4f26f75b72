"""An application next to inbox: a real HTTP server on loopback that answers what a test says."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from inbox.handlers import http
from inbox.handlers.base import File
from inbox.handlers.http import HttpHandler, http_handler

FILE = File(Path("/shared/extracted/b1/docs/a.txt"), "a.txt", "docs/a.txt", "text", 3, "0" * 64, "d1", "b1", "r1", 2)


class Application:
    """Answers what the test says and remembers what it was asked, and over how many connections."""

    def __init__(self):
        self.status, self.body, self.headers, self.speak = 200, b"{}", {}, None
        self.requests = []
        self.connections = set()
        self.closing = threading.Event()
        application = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                application.requests.append((self.path, headers, json.loads(body)))
                application.connections.add(self.client_address)
                with suppress(ConnectionError):
                    if application.speak:
                        application.speak(self.wfile)
                        self.close_connection = True
                        return
                    self.send_response(application.status)
                    for name, value in application.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(application.body)))
                    self.end_headers()
                    self.wfile.write(application.body)

            def log_message(self, *_arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/files"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, status, body=b"", **headers):
        self.status, self.body = status, body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer_bytes(self, *pieces):
        """Say exactly these bytes and close the connection."""
        self.speak = lambda out: [out.write(piece) for piece in pieces]

    def close(self):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def running() -> Iterator[Application]:
    application = Application()
    try:
        yield application
    finally:
        application.close()
        http._connections.cache_clear()


def ask(url, seconds=30.0, file=FILE, **options):
    if options:
        return HttpHandler(http.parse_url(url), seconds, Path("/shared"), **options)(file)
    return http_handler(url, seconds, Path("/shared")).function(file)
