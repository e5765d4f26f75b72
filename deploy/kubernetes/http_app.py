"""
An application next to inbox: answers what `HANDLER_URL=http://127.0.0.1:9000/files` posts, with the standard library.

The status says what becomes of the file: 2xx success, 4xx a permanent failure, 408, 429 and 5xx another attempt.
"""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STORAGE = Path(os.environ.get("STORAGE_BASE_PATH", "/shared"))


class Files(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        file = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = (STORAGE / file["file_path"]).read_bytes()
        answer = json.dumps({"bytes": len(content), "lines": content.count(b"\n")}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # process 1 of a container ignores it otherwise
    ThreadingHTTPServer(("127.0.0.1", 9000), Files).serve_forever()
