"""A loopback stand-in for an OpenAI-compatible judge; it counts calls, and fails on demand.

    with JudgeServer() as server:
        server.fault = lambda prompt, call: "hang" if call == 1 else None
        server.die(); server.live()  # connections refused, then the same state on the same port

``fault`` gets the text of a prompt and the number of this call about it, from 1, and names the kind
of failure, or None for a true reply. A true reply depends on the question's number alone, so that
tests know the totals; "right" is a reply about a question without a number.
"""

import json
import re
import socket
import threading
from collections import Counter

from local_server import LocalHandler, LocalServer

QUESTION = re.compile(r"^Question: \D*(\d+)", re.MULTILINE)
MODEL = "stand-in"
STATUSES = {"400": 400, "401": 401, "404": 404, "429": 429, "500": 500, "redirect": 307}
TEXTS = {
    "right": "{'pred': 'yes', 'score': 5}",
    "garbage": "The moon is made of cheese.", "empty": "  ", "truncated": "{'pred': 'y",
    "refusal": "I'm sorry, I cannot evaluate this.", "none": None,
    "high": "{'pred': 'yes', 'score': 9}",
    "both": "{'pred': 'yes', 'score': 5} or {'pred': 'no', 'score': 0}",
}  # fmt: skip


def truth(question):
    """Verdict of the stand-in about the question with this number in its text."""
    return question % 3 > 0, float(question % 6)


class _Handler(LocalHandler):
    state: "JudgeServer"

    def do_POST(self):
        state = self.state
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = request["messages"][-1]["content"]
        with state.lock:
            state.calls[prompt] += 1
            state.requests.append(request)
            state.keys.add(self.headers.get("Authorization"))
            state.at_once += 1
            state.most_at_once = max(state.most_at_once, state.at_once)
            fault = state.fault(prompt, state.calls[prompt])
        try:
            state.over.wait(state.delay)
            self._answer(prompt, fault)
        finally:
            with state.lock:
                state.at_once -= 1

    def _answer(self, prompt, fault):
        state = self.state
        if fault == "hang":
            state.over.wait(60)
            self.close_connection = True
        elif fault == "drip":  # a byte now and then: no single read ever waits long
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            while not state.over.wait(0.02):
                self.wfile.write(b" ")
        elif fault == "cut":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault in STATUSES:
            # a careless proxy repeats the key
            message = f"no: {self.headers.get('Authorization')}"
            self._reply(STATUSES[fault], {"error": {"message": message}})
        elif fault == "escaped":  # the key, with every character as an escape of JSON
            key = str(self.headers.get("Authorization")).removeprefix("Bearer ")
            escaped = "".join(f"\\u{ord(letter):04x}" for letter in key)
            self._send(500, f'{{"error": "no: {escaped}"}}'.encode())
        elif fault == "no json":
            self._send(200, b"<html>busy</html>")
        elif fault == "no choices":
            self._reply(200, {"choices": []})
        elif fault == "filtered":
            self._complete("", finish_reason="content_filter")
        elif fault == "cut off":
            self._complete("{'pred': 'yes', ", finish_reason="length")
        elif fault == "echo":
            self._complete(f"{{'pred': 'yes', 'score': 5}} {self.headers.get('Authorization')}")
        elif fault in TEXTS:
            self._complete(TEXTS[fault])
        else:
            assert fault is None, fault
            correct, score = truth(int(QUESTION.search(prompt)[1]))
            with state.lock:
                state.true_replies[prompt] += 1
            self._complete(f"{{'pred': '{'yes' if correct else 'no'}', 'score': {score:g}}}")

    def _complete(self, text, finish_reason="stop"):
        message = {"role": "assistant", "content": text}
        self._reply(
            200,
            {
                "model": f"{MODEL}-0125",
                "choices": [{"message": message, "finish_reason": finish_reason}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 10},
            },
        )

    def _reply(self, status, value):
        self._send(status, json.dumps(value).encode())

    def _send(self, status, body):
        self.send_response(status)
        if status == 307:
            self.send_header("Location", f"{self.state.url}/elsewhere")
        if status == 429:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class JudgeServer(LocalServer):
    """The stand-in, listening while it is entered."""

    Handler = _Handler

    def __init__(self):
        super().__init__()
        self.fault = lambda prompt, call: None
        self.calls, self.true_replies, self.keys, self.requests = Counter(), Counter(), set(), []
        self.at_once, self.most_at_once = 0, 0
        self.lock = threading.Lock()
        self.delay = 0.0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def n(self):
        """Number of all calls."""
        return sum(self.calls.values())
