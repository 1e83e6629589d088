#!/usr/bin/env python3
"""A source of signals that nobody should trust: of both versions it says the same noise with a long tail, leaves out one value of
five, and now and then has nothing to say or fails. A rollout must neither be reverted because of it nor be waved through.
"""
import json
import random
import sys

asked = json.load(sys.stdin)
luck = random.random()
if luck < 0.07:
    answer = {"error": "502 Bad Gateway, as it happens"}
elif luck < 0.14:
    answer = {"missing": "no data, as it happens"}
else:
    count = max(1, (asked["to_ms"] - asked["from_ms"]) // asked["step_ms"])
    side = lambda: [None if random.random() < 0.2 else 10 * random.paretovariate(1.1) for _ in range(count)]
    answer = {"canary": side(), "baseline": side()}
print(json.dumps(answer))
