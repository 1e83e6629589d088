#!/usr/bin/env python3
"""Users of a service: asks without a pause (or with one), a connection for each request, and counts who answered and what failed.

    users.py HOST:PORT SECONDS [USERS [FILE [PAUSE]]]

Ends when the time is over, or when there is a FILE.
"""
import collections
import http.client
import json
import os
import sys
import threading
import time


def ask(address, until, stop, counts):
    while time.monotonic() < until and not (stop and os.path.exists(stop)):
        connection = None
        try:
            connection = http.client.HTTPConnection(address, timeout=30)
            connection.request("GET", "/", headers={"Connection": "close"})
            answer = connection.getresponse()
            body = answer.read().decode().strip()
            counts[body if answer.status == 200 else f"{answer.status} {body}".split("\n")[0][:40]] += 1
        except (OSError, http.client.HTTPException) as error:
            counts[f"lost: {type(error).__name__}"] += 1
        finally:
            if connection:
                connection.close()
        time.sleep(pause)


address, seconds = sys.argv[1], float(sys.argv[2])
users = int(sys.argv[3]) if len(sys.argv) > 3 else 4
stop = sys.argv[4] if len(sys.argv) > 4 else None
pause = float(sys.argv[5]) if len(sys.argv) > 5 else 0.0
counts = [collections.Counter() for _ in range(users)]
until = time.monotonic() + seconds
threads = [threading.Thread(target=ask, args=(address, until, stop, own)) for own in counts]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(sum(counts, collections.Counter()), sort_keys=True))
