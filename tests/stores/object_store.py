"""A real server of the Google Cloud Storage protocol on loopback, and a door before it that breaks requests on demand."""

import http.client
import http.server
import itertools
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serve_objects(bucket: str) -> Iterator[str]:
    """Yields the server's address; it keeps all objects in memory."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("gcp-storage-emulator")), "start", "--host=127.0.0.1", f"--port={port}", "--in-memory"]
    process = subprocess.Popen([*command, f"--default-bucket={bucket}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                with urlopen(f"http://127.0.0.1:{port}/storage/v1/b/{bucket}", timeout=1):
                    break
            except OSError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


Refusal = tuple[int, str]
"""A status, and the reason that the store's answer gives."""
Fault = int | str | Refusal


class Door:
    """Passes requests on; `faults` holds what befalls the next ones: a status or refusal, "reset" before or in the answer, or "slow"."""

    def __init__(self, target: str) -> None:
        self.faults: list[Fault] = []
        self.faults_between: Iterator[Fault | None] = itertools.repeat(None)  # one a request, once `faults` is empty
        self.refuse: Callable[[str, str], Refusal | None] = lambda method, path: None  # goes before both
        self.requests, self.sent_bytes = 0, 0
        self._lock = threading.Lock()
        host = target.removeprefix("http://")
        door = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes, and the second would wait 40 ms

            def log_message(self, *args: object) -> None:
                pass

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with door._lock:
                    door.requests += 1
                    fault: Fault | None = door.refuse(self.command, self.path)
                    if fault is None:
                        fault = door.faults.pop(0) if door.faults else next(door.faults_between)
                if isinstance(fault, int | tuple):
                    self._refuse(*(fault if isinstance(fault, tuple) else (fault, "")))
                    return
                if fault == "reset":
                    self._reset()
                    return
                connection = http.client.HTTPConnection(host, timeout=60)
                headers = {name: value for name, value in self.headers.items() if name.lower() not in ("connection", "accept-encoding")}
                connection.request(self.command, self.path, body, headers | {"Host": self.headers["Host"]})
                answer = connection.getresponse()
                data = answer.read()
                with door._lock:
                    door.sent_bytes += len(data)
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if fault == "reset-in-answer":
                    self.wfile.write(data[: len(data) // 2])
                    self._reset()
                elif fault == "slow":
                    for start in range(0, len(data), max(1, len(data) // 4)):
                        self.wfile.write(data[start : start + max(1, len(data) // 4)])
                        self.wfile.flush()
                        time.sleep(0.2)
                else:
                    self.wfile.write(data)
                connection.close()

            def _refuse(self, status: int, reason: str) -> None:
                """Answers as the store would, with `reason` (if any) in the body."""
                message = "the account lacks a right on 'it': none"
                error = {"code": status, "message": message, "errors": [{"domain": "global", "reason": reason, "message": message}]}
                body = json.dumps({"error": error}).encode() if reason else b""
                self.send_response(status)
                self.send_header("Content-Type", "application/json; charset=UTF-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _reset(self) -> None:
                self.wfile.flush()
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _pass_on

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
