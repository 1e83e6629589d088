#!/usr/bin/env python3
"""The shop says that it is well."""
import subprocess
import sys
import urllib.request

server = subprocess.Popen([sys.executable, "out/server.py", "0"], stdout=subprocess.PIPE, text=True)
try:
    with urllib.request.urlopen(server.stdout.readline().strip() + "healthz", timeout=10) as answer:
        assert answer.read() == b"well\n"
finally:
    server.terminate()
    server.wait()
