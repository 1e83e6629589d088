#!/usr/bin/env python3
"""Targets that are directories, as a program that `kiln serve` drives: `[targets.NAME]` in `rollouts.parts`.

    targets.py DIRECTORY

Each directory below DIRECTORY is a target. What it is told is in its `order.json`; it runs the version that is in there, and
is not well while there is a file `ill`. `target.json` has its address and labels, where it has any. A real one would ask an orchestrator instead; docs/rollouts.md has the protocol.
"""

import json
import os
import sys
import tempfile


def read(directory, name="order.json"):
    try:
        with open(os.path.join(directory, name), encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def write(directory, order):
    # A rename is whole or not at all.
    handle, path = tempfile.mkstemp(dir=directory)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(order, file)
    os.rename(path, os.path.join(directory, "order.json"))


def newer(one, other):
    return (one["fence"], one["change"]) > (other["fence"], other["change"])


def tell(directory, request):
    order = read(directory)
    if order and newer(order["generation"], request["generation"]):
        return {"stale": order["generation"]}
    if not order or newer(request["generation"], order["generation"]):
        write(directory, {"version": request["version"], "generation": request["generation"]})
    return {"told": "accepted"}


def observe(directory):
    if not os.path.isdir(directory):
        return None
    ill = os.path.exists(os.path.join(directory, "ill"))
    seen = {"healthy": not ill, "why": "there is a file `ill`" if ill else ""}
    return {**seen, **(read(directory) or {})}


def main():
    root = sys.argv[1]
    request = json.load(sys.stdin)
    names = sorted(name for name in os.listdir(root) if os.path.isdir(os.path.join(root, name)))
    if request["do"] == "list":
        described = lambda name: read(os.path.join(root, name), "target.json") or {}
        answer = [{**described(name), "name": name} for name in names]
    elif request["do"] == "tell":
        if request["target"] not in names:
            sys.exit("there is no such target")
        answer = tell(os.path.join(root, request["target"]), request)
    else:
        known = [name if name in names else None for name in request["targets"]]
        answer = [observe(os.path.join(root, name)) if name else None for name in known]
    print(json.dumps(answer))


main()
