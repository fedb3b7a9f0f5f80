"""A loopback stand-in for W&B: GraphQL, file streams, uploads, artifacts; faults on demand.

It keeps what the client sends and says where that is not one row a step, and it answers nothing
it does not know: such a question is kept in ``unknown``. It shows what a client sends. Whether W&B
itself takes it and shows it, it does not.

    with WandbServer() as server:
        environment = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        server.fault = 503          # or HANG; None: well again
        server.die(); server.live() # connections refused, then the same state on the same port
"""

import gzip
import json
import re
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from wandb_answers import Answers

KEY = "0" * 40
HANG = "hang"
STREAM = re.compile(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream$")


class WandbServer(Answers):
    """The stand-in, listening while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: int | str | None = None
        self.refused = 0
        self.lock = threading.RLock()
        self.well = threading.Event()
        self.sockets: set[socket.socket] = set()
        self.http: Any = None
        self.port = 0

    def __enter__(self) -> "WandbServer":
        self.live()
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def live(self) -> None:
        handler = type("Handler", (_Handler,), {"server_state": self})
        ThreadingHTTPServer.allow_reuse_address = True
        self.well.clear()
        self.http = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def die(self) -> None:
        """Refuse connections and cut those there are."""
        if self.http is None:
            return
        self.well.set()
        self.http.shutdown()
        self.http.server_close()
        for connection in list(self.sockets):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.http = None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: WandbServer

    def setup(self) -> None:
        super().setup()
        self.server_state.sockets.add(self.connection)

    def finish(self) -> None:
        self.server_state.sockets.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def handle(self) -> None:
        with suppress(OSError, ValueError):  # cut by die()
            super().handle()

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        if not self._faulty():
            self._reply(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        body = self._body()
        if not self._faulty():
            with self.server_state.lock:
                self.server_state.uploads[self.path.removeprefix("/upload/")] = body
            self._reply(200)

    def do_POST(self) -> None:
        body, state = self._body(), self.server_state
        if self._faulty():
            return
        if self.path.startswith("/graphql"):
            asked = json.loads(body)
            with state.lock:
                data = state.answer(asked["query"], asked.get("variables") or {})
                if data is None:
                    state.unknown.append(asked["query"])
            refusal = {"data": None, "errors": [{"message": "not known to the stand-in"}]}
            self._reply(200, refusal if data is None else {"data": data})
        elif found := STREAM.match(self.path):
            with state.lock:
                self._reply(200, state.stream(found.group(3), json.loads(body)))
        elif self.path.startswith("/sdk/otel/"):  # what newer clients tell of themselves
            self._reply(200)
        else:
            with state.lock:
                state.unknown.append(self.path)
            self._reply(404)

    def _faulty(self) -> bool:
        state = self.server_state
        if state.fault is None:
            return False
        state.refused += 1
        if state.fault == HANG:
            state.well.wait(600)
            self.close_connection = True
        else:
            self._reply(int(state.fault))
        return True

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _reply(self, status: int, value: Any = None) -> None:
        body = json.dumps({} if value is None else value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
