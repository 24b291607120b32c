"""Answers what the watchdog passes on by calling the handler in ./function. Nothing but Python is needed."""
import json
import os
import signal
import socket
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "function"), os.path.join(HERE, "packages")]

from handler import handle  # noqa: E402 (the path comes first)


def size(text):
    """Bytes of 10mb, 512kb or 4096."""
    text = text.lower().removesuffix("b")
    factor = {"k": 1024, "m": 1024**2}.get(text[-1:], 1)
    return int(text if factor == 1 else text[:-1]) * factor


LIMIT = size(os.environ.get("MAX_RAW_SIZE", "10mb"))


class Event:
    def __init__(self, method, target, headers, body):
        url = urlsplit(target)
        self.method = method
        self.path = url.path
        # several values of one name are a list
        self.query = {k: v if len(v) > 1 else v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
        self.headers = headers
        self.body = body


class Context:
    hostname = socket.gethostname()


class Refused(Exception):
    def __init__(self, status, why):
        super().__init__(why)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # an answer in two writes would wait for the other side's acknowledgement of the first
    disable_nagle_algorithm = True
    wbufsize = -1

    def respond(self):
        try:
            body = self.read_body()
            status, headers, body = answer(handle(Event(self.command, self.path, self.headers, body), Context()))
        except Refused as e:
            self.close_connection = True
            status, headers, body = e.status, {"Content-Type": "text/plain"}, f"{e}\n".encode()
        except Exception:
            traceback.print_exc()
            status, headers, body = 500, {"Content-Type": "text/plain"}, b"the function failed; its log says why\n"
        self.send_response_only(status)
        for name, value in headers.items():
            for one in value if isinstance(value, (list, tuple)) else [value]:
                self.send_header(name, str(one))
        empty = status in (204, 304) or 100 <= status < 200
        if not empty:
            self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if not empty and self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def __getattr__(self, name):
        # every method is the function's business
        if name.startswith("do_"):
            return self.respond
        raise AttributeError(name)

    def read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(self.chunks())
        length = int(self.headers.get("Content-Length") or 0)
        if length > LIMIT:
            raise Refused(413, f"the body is larger than {LIMIT} bytes (MAX_RAW_SIZE)")
        return self.rfile.read(length)

    def chunks(self):
        total = 0
        while True:
            length = int(self.rfile.readline(100).split(b";")[0], 16)
            total += length
            if total > LIMIT:
                raise Refused(413, f"the body is larger than {LIMIT} bytes (MAX_RAW_SIZE)")
            if length == 0:
                while self.rfile.readline(65536).strip():
                    pass
                return
            yield self.rfile.read(length)
            self.rfile.readline(2)

    def log_message(self, *_):
        pass  # the watchdog has a line for every call


def answer(result):
    """Status, headers and body of what a handler returned: a dictionary, text, bytes, or nothing."""
    if not isinstance(result, dict):
        result = {"body": result}
    headers = dict(result.get("headers") or {})
    body = result.get("body")
    kind = "text/plain; charset=utf-8"
    if body is None:
        body = b""
    elif isinstance(body, (bytes, bytearray)):
        kind = "application/octet-stream"
    elif isinstance(body, (dict, list)):
        kind, body = "application/json", json.dumps(body).encode()
    else:
        body = str(body).encode()
    if body and not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = kind
    # this server counts for itself
    headers = {k: v for k, v in headers.items() if k.lower() not in ("content-length", "transfer-encoding")}
    return int(result.get("statusCode", 200)), headers, bytes(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


def main():
    server = Server(("127.0.0.1", int(os.environ.get("http_port", "5000"))), Handler)
    # shutdown waits for the loop that runs in this thread; the watchdog has let all calls end before it sends this
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()


main()
