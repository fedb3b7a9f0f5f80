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
import threading
from typing import Any

from local_server import LocalHandler, LocalServer
from wandb_answers import Answers

KEY = "0" * 40
HANG = "hang"
STREAM = re.compile(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream$")


class _Handler(LocalHandler):
    state: "WandbServer"

    def do_GET(self) -> None:
        if not self._faulty():
            self._reply(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        body = self._body()
        if not self._faulty():
            with self.state.lock:
                self.state.uploads[self.path.removeprefix("/upload/")] = body
            self._reply(200)

    def do_POST(self) -> None:
        body, state = self._body(), self.state
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
        state = self.state
        if state.fault is None:
            return False
        state.refused += 1
        if state.fault == HANG:
            state.over.wait(600)
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


class WandbServer(LocalServer, Answers):
    """The stand-in, listening while it is entered."""

    Handler = _Handler

    def __init__(self) -> None:
        super().__init__()
        self.fault: int | str | None = None
        self.refused = 0
        self.lock = threading.RLock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"
