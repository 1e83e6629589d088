#!/usr/bin/python3 -IS
"""A tool that can stay: does what the lines of its flag file say."""
import base64
import json
import os
import sys
import time

TOKEN = os.urandom(6).hex()
STAYS = "--persistent_worker" in sys.argv
PROTO = "--proto" in sys.argv
count = 0
held = []


def do(arguments, inputs):
    """Exit code and what there is to say."""
    said = [f"token {TOKEN} request {count}"]
    for line in arguments:
        verb, *rest = line.split(" ")
        if verb == "copy":
            with open(rest[0]) as source, open(rest[1], "w") as target:
                target.write(source.read())
        elif verb == "has":
            said.append(f"{rest[0]} {os.path.exists(rest[0])}")
        elif verb == "scribble":
            with open(rest[0], "w") as target:
                target.write("undeclared")
        elif verb == "hold" and STAYS:
            held.append(open(rest[0], "w"))
            held[-1].write("early")
            held[-1].flush()
        elif verb == "flood" and STAYS:
            while True:
                os.write(int(rest[0]), rest[1].encode() * 4096 or b" " * 65536)
        elif verb == "fill" and STAYS:
            with open("/tmp/left", "ab") as left:
                left.write(b"x" * int(rest[0]))
        elif verb == "use":
            with open("/tmp/used", "wb") as used:
                used.write(b"x" * int(rest[0]))
            os.remove("/tmp/used")
        elif verb == "keep" and STAYS:
            with open(rest[0], "wb") as kept:
                kept.write(b"x" * int(rest[1]))
            held.append(open(rest[0], "rb"))
        elif verb == "whisper" and STAYS:
            os.write(2, rest[0].encode() + b"\n")
            time.sleep(0.2)
        elif verb == "inputs":
            said.extend(f"{path} {digest}" for path, digest in inputs)
        elif verb == "crash":
            sys.stderr.write("a crash\n")
            sys.stderr.flush()
            os._exit(9)
        elif verb == "crash-if-it-stays" and STAYS:
            os._exit(9)
        elif verb == "print" and STAYS:
            os.write(1, b"Compiling...\n")
        elif verb == "sleep":
            time.sleep(float(rest[0]))
        elif verb == "fail":
            return int(rest[0]), "\n".join(said)
    return 0, "\n".join(said)


def varint(stream):
    value = shift = 0
    while True:
        byte = stream.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return value


def encode_varint(value):
    value &= (1 << 64) - 1
    encoded = b""
    while value > 0x7F:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def fields(data):
    import io

    stream = io.BytesIO(data)
    while (tag := varint(stream)) is not None:
        yield tag >> 3, varint(stream) if tag & 7 == 0 else stream.read(varint(stream))


def next_proto():
    length = varint(sys.stdin.buffer)
    if length is None:
        return None
    arguments, inputs = [], []
    for number, value in fields(sys.stdin.buffer.read(length)):
        if number == 1:
            arguments.append(value.decode())
        elif number == 2:
            parts = dict(fields(value))
            inputs.append((parts[1].decode(), parts[2].decode()))
    return arguments, inputs


def next_json():
    line = sys.stdin.readline()
    if not line:
        return None
    request = json.loads(line)
    inputs = [(i["path"], base64.b64decode(i["digest"]).decode()) for i in request["inputs"]]
    return request["arguments"], inputs


def answer(code, said):
    if PROTO:
        output = said.encode()
        body = b"\x08" + encode_varint(code) + b"\x12" + encode_varint(len(output)) + output
        sys.stdout.buffer.write(encode_varint(len(body)) + body)
        sys.stdout.buffer.flush()
    else:
        print(json.dumps({"exitCode": code, "output": said}), flush=True)


if "--never-answers" in sys.argv and STAYS:
    sys.exit("no way to stay")
if "--answers-early" in sys.argv and STAYS:
    os.read(0, 1000)
    answer(0, f"token {TOKEN} request 1")
    time.sleep(60)
if STAYS:
    while (request := (next_proto if PROTO else next_json)()) is not None:
        count += 1
        try:
            result = do(*request)
        except OSError as error:
            result = 1, f"token {TOKEN} request {count} {error}"
        answer(*result)
else:
    flags = [argument[1:] for argument in sys.argv if argument.startswith("@")]
    code, said = do([line.rstrip("\n") for flag in flags for line in open(flag)], [])
    print("alone", said)
    sys.exit(code)
