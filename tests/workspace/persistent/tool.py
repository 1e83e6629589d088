#!/usr/bin/python3 -IS
"""Writes a file in capitals. Stays for further requests with --persistent_worker; speaks protobuf
with --proto. Takes as long to start as a tool that has much to load."""
import asyncio, email.message, http.client, unittest, xml.dom.minidom  # noqa: F401
import io
import json
import sys


def do(arguments):
    source, target = arguments
    with open(source) as text:
        capitals = text.read().upper()
    with open(target, "w") as out:
        out.write(capitals)


def varint(stream):
    value = shift = 0
    while byte := stream.read(1):
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return value
    return None


def proto_requests():
    while (length := varint(sys.stdin.buffer)) is not None:
        message = io.BytesIO(sys.stdin.buffer.read(length))
        arguments = []
        while (tag := varint(message)) is not None:
            value = varint(message) if tag & 7 == 0 else message.read(varint(message))
            if tag >> 3 == 1:
                arguments.append(value.decode())
        yield arguments
        sys.stdout.buffer.write(b"\0")  # a response in which all is as usual
        sys.stdout.buffer.flush()


def json_requests():
    for line in sys.stdin:
        yield json.loads(line)["arguments"]
        print(json.dumps({"exitCode": 0, "output": ""}), flush=True)


if "--persistent_worker" in sys.argv:
    for request in proto_requests() if "--proto" in sys.argv else json_requests():
        do(request)
else:
    with open(sys.argv[-1].lstrip("@")) as flags:
        do(flags.read().splitlines())
