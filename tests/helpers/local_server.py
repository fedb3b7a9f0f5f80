"""A server on loopback that can stop answering and come back on the same port with its state."""

import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self


class LocalServer:
    """A server that listens while it is entered; ``over`` is set when it stops.

    Attributes:
        Handler: Handler of its connections; an instance reads the server's state at ``state``.
    """

    Handler: ClassVar[type["LocalHandler"]]

    def __init__(self) -> None:
        super().__init__()
        self.over = threading.Event()
        self.sockets: set[socket.socket] = set()
        self.http: Any = None
        self.port = 0

    def __enter__(self) -> Self:
        self.live()
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    def live(self) -> None:
        handler = type("Handler", (self.Handler,), {"state": self})
        ThreadingHTTPServer.allow_reuse_address = True
        self.over.clear()
        self.http = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def die(self) -> None:
        """Refuse connections, and cut those there are."""
        if self.http is None:
            return
        self.over.set()
        self.http.shutdown()
        self.http.server_close()
        for connection in list(self.sockets):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.http = None


class LocalHandler(BaseHTTPRequestHandler):
    """Handler of one connection, which the server can cut."""

    protocol_version = "HTTP/1.1"
    state: Any

    def setup(self) -> None:
        super().setup()
        self.state.sockets.add(self.connection)

    def finish(self) -> None:
        self.state.sockets.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def handle(self) -> None:
        with suppress(OSError, ValueError):  # cut by die(), or by a client that is gone
            super().handle()

    def log_message(self, *_: object) -> None:
        """Nothing."""
