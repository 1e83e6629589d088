#!/usr/bin/env python3
"""Twelve visitors, each of a shop of their own. Runs those of its shard and reports them, as any runner does that Bazel shards."""
import contextlib
import os
import subprocess
import sys
import time
import urllib.request

VISITORS = 12
SHOP = "out/server.py"


@contextlib.contextmanager
def shop():
    with subprocess.Popen([sys.executable, SHOP, "0"], stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def get(address):
    with urllib.request.urlopen(address, timeout=10) as answer:
        return answer.read().decode()


def visit():
    with shop() as address:
        for _ in range(3):
            assert get(address).startswith("Welcome to the shop."), "nobody is welcome"
            time.sleep(0.1)  # reads the page
        assert 'requests_total{code="200"} 3' in get(address + "metrics"), "not all were counted"


def main():
    total, index = int(os.environ.get("TEST_TOTAL_SHARDS", 1)), int(os.environ.get("TEST_SHARD_INDEX", 0))
    if "TEST_SHARD_STATUS_FILE" in os.environ:
        open(os.environ["TEST_SHARD_STATUS_FILE"], "w").close()
    report, failed = [], 0
    for visitor in range(index, VISITORS, total):
        began, failure = time.monotonic(), ""
        try:
            visit()
        except (AssertionError, OSError) as error:
            failed, failure = failed + 1, f'<failure message="{type(error).__name__}"/>'
            print(f"visitor {visitor}: {error}", flush=True)
        took = time.monotonic() - began
        report.append(f'<testcase classname="Browse" name="visitor{visitor}" time="{took:.3f}">{failure}</testcase>')
    with open(os.environ["XML_OUTPUT_FILE"], "w") as file:
        file.write(f'<testsuites><testsuite name="Browse">{"".join(report)}</testsuite></testsuites>')
    sys.exit(failed > 0)


main()
