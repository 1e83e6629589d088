#!/usr/bin/env python3
"""A service that can be bad on purpose: answers every request, counts what it answers for Prometheus.

    app.py [--port PORT] [--address-file FILE] [--errors SHARE] [--delay SECONDS] [--leak BYTES] [--crash-after SECONDS]
           [--version NAME]

Listens on a port of this machine, a free one if none is named, and writes host:port to FILE. `--leak` is by the second, and ends at 300 MB
so that it harms nobody. What is not said stands in
`behaviour.json` beside this file, if there is one: {"errors": 0.02, "delay": 0.01, "crash_after": 20, "version": "2"}.
"""
import argparse
import json
import os
import random
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_LEAK = 300_000_000
BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def leak(by_the_second):
    kept = []
    while sum(map(len, kept)) < MAX_LEAK:
        kept.append(b"x" * (by_the_second // 4))
        time.sleep(0.25)
    threading.Event().wait()


class Counts:
    def __init__(self):
        self.lock = threading.Lock()
        self.codes = {200: 0, 500: 0}
        self.buckets = [0] * len(BOUNDS)
        self.sum = 0.0

    def add(self, code, seconds):
        with self.lock:
            self.codes[code] += 1
            self.sum += seconds
            for at, bound in enumerate(BOUNDS):
                self.buckets[at] += seconds <= bound

    def text(self):
        with self.lock:
            lines = ["# TYPE requests_total counter"]
            lines += [f'requests_total{{code="{code}"}} {count}' for code, count in self.codes.items()]
            lines.append("# TYPE latency_seconds histogram")
            lines += [f'latency_seconds_bucket{{le="{le}"}} {n}' for le, n in zip(BOUNDS, self.buckets)]
            total = sum(self.codes.values())
            lines += [f'latency_seconds_bucket{{le="+Inf"}} {total}']
            lines += [f"latency_seconds_sum {self.sum}", f"latency_seconds_count {total}"]
            lines += ["# TYPE resident_bytes gauge", f"resident_bytes {resident()}"]
            return "\n".join(lines) + "\n"


class Server(ThreadingHTTPServer):
    # Requests that have begun are waited for at the end.
    daemon_threads = False
    allow_reuse_address = True
    request_queue_size = 128


def handler(options, counts):
    class Handler(BaseHTTPRequestHandler):
        # A connection for each request (HTTP/1.0): none is left idle that the end would have to wait for.
        def answer(self, code, text):
            body = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            if self.path == "/metrics":
                return self.answer(200, counts.text())
            if self.path == "/healthz":
                return self.answer(200, "well\n")
            start = time.monotonic()
            if options.delay:
                time.sleep(random.expovariate(1 / options.delay))
            code = 500 if random.random() < options.errors else 200
            # Counted before it is answered: who was answered was counted.
            counts.add(code, time.monotonic() - start)
            return self.answer(code, options.version + "\n")

        def log_message(self, *_):
            pass

    return Handler


def behaviour():
    try:
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "behaviour.json")) as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--address-file")
    parser.add_argument("--errors", type=float, default=0.0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--leak", type=int, default=0)
    parser.add_argument("--crash-after", type=float, default=0.0)
    parser.add_argument("--version", default="old")
    parser.set_defaults(**behaviour())
    options = parser.parse_args()
    server = Server(("127.0.0.1", options.port), handler(options, Counts()))
    # Who is told to end answers what has begun.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    if options.leak:
        threading.Thread(target=leak, args=(options.leak,), daemon=True).start()
    if options.crash_after:
        threading.Timer(options.crash_after, os._exit, [1]).start()
    if options.address_file:
        host, port = server.server_address[:2]
        beside = options.address_file + ".new"
        with open(beside, "w") as file:
            file.write(f"{host}:{port}")
        os.rename(beside, options.address_file)
    server.serve_forever(poll_interval=0.1)
    server.server_close()


main()
