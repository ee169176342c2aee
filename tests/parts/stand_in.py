"""A stand-in for a part of `tpstream up`: answers /ping and /health, and writes down what happens to it.

python stand_in.py NAME PORT EVENTS [--announce DIR] [--lag N] [--stop SECONDS] [--die SECONDS]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

arguments = argparse.ArgumentParser()
arguments.add_argument("name")
arguments.add_argument("port", type=int)
arguments.add_argument("events", type=Path)
arguments.add_argument("--announce", type=Path)
arguments.add_argument("--listen", type=int, help="one more port that takes connections")
arguments.add_argument("--lag", type=int, default=0, help="falls by one with each question")
arguments.add_argument("--ill", type=int, default=0, help="questions for /health that are answered with 503")
arguments.add_argument("--stop", type=float, default=0.0, help="seconds that SIGTERM takes")
arguments.add_argument("--die", type=float, help="seconds until exit code 3")
arguments.add_argument("--wrong", action="store_true", help="exit code 2 at once")
arguments.add_argument("--grandchild", action="store_true", help="start a process that never ends by itself")
given = arguments.parse_args()
lag = given.lag
ill = given.ill


def event(what: str) -> None:
    with given.events.open("a") as file:
        file.write(json.dumps([given.name, what, os.getpid(), time.time()]) + "\n")


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        global lag, ill
        well = self.path != "/health" or ill <= 0
        body = json.dumps({"ok": well, "lag": lag, "bridge": {"ok": well, "detail": "is away"}}).encode()
        if self.path == "/health":
            lag, ill = max(0, lag - 1), ill - 1
        self.answer(body, 200 if well else 503)

    def do_POST(self) -> None:
        event(self.path.strip("/"))
        self.answer(b"{}")

    def answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def stop(*_: object) -> None:
    time.sleep(given.stop)
    event("stopped")
    os._exit(0)


signal.signal(signal.SIGTERM, stop)
print(f"{given.name} is here")
if given.wrong:
    print("a setting is wrong")
    sys.exit(2)
server = ThreadingHTTPServer(("127.0.0.1", given.port), Answer)
if given.listen:
    also = socket.create_server(("127.0.0.1", given.listen))
if given.grandchild:
    event(f"grandchild {subprocess.Popen(['sleep', '600']).pid}")
if given.announce:
    from tpstream.observability.announce import announce

    announce(given.announce, given.name, server.server_address[1])
event("started")
if given.die is not None:
    threading.Timer(given.die, lambda: (print("something broke", flush=True), os._exit(3))).start()
server.serve_forever()
