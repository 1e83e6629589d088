#!/usr/bin/env python3
"""The shop: one page, what it has answered for Prometheus, and whether it is well.

    server.py PORT        0: a free one
"""
import collections
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

counting = threading.Lock()
answered = collections.Counter({200: 0, 500: 0})


def page():
    return "Welcome to the shop.\n"


def metrics():
    with counting:
        counts = [f'requests_total{{code="{code}"}} {count}\n' for code, count in answered.items()]
    return "# TYPE requests_total counter\n" + "".join(counts)


class Shop(BaseHTTPRequestHandler):
    # A connection for each request (HTTP/1.0): none is left idle that the end would have to wait for.
    def do_GET(self):
        if self.path == "/healthz":
            return self.answer(200, "well\n")
        if self.path == "/metrics":
            return self.answer(200, metrics())
        try:
            code, text = 200, page()
        except Exception as error:
            print(f"no page: {error!r}", flush=True)
            code, text = 500, "Something went wrong.\n"
        # Counted before it is answered: who was answered was counted.
        with counting:
            answered[code] += 1
        return self.answer(code, text)

    def answer(self, code, text):
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    # Requests that have begun are waited for at the end.
    daemon_threads = False
    allow_reuse_address = True
    request_queue_size = 128


def main():
    server = Server(("127.0.0.1", int(sys.argv[1])), Shop)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"http://127.0.0.1:{server.server_address[1]}/", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()


if __name__ == "__main__":
    main()
