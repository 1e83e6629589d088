#!/usr/bin/env python3
"""Verifies what `kiln audit export` wrote, with nothing of Kiln: Python's library and the program openssl.

    verify-audit.py LOG.jsonl [--key PUBLIC.pem] [--head SEQUENCE:HASH]

Each entry must hash to what it says and name the hash of the one before it; each checkpoint must be signed by the key and name
the entry that it stands behind. --head names an entry that is known from elsewhere: it must be there.
Exit codes: 0 it holds, 1 it does not, 2 it cannot be read.
"""

import argparse
import base64
import hashlib
import json
import struct
import subprocess
import sys
import tempfile

CHECKPOINT = "application/vnd.kiln.audit-checkpoint.v1+json"


class Broken(Exception):
    pass


def entry_hash(entry):
    """Numbers in 8 bytes, little end first; texts in UTF-8 with their length before them; the hash before."""
    content = struct.pack("<QQ", entry["sequence"], entry["time"])
    for name in ("actor", "action", "subject", "details"):
        text = entry[name].encode()
        content += struct.pack("<Q", len(text)) + text
    return hashlib.sha256(content + bytes.fromhex(entry["previous"])).hexdigest()


def openssl(*arguments):
    return subprocess.run(["openssl", *arguments], capture_output=True).returncode == 0


def signed(envelope, key):
    """The payload, if the key signed it (DSSE)."""
    kind, payload = envelope["payloadType"], base64.b64decode(envelope["payload"])
    if kind != CHECKPOINT or len(envelope["signatures"]) != 1:
        raise Broken("a checkpoint is none")
    pae = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    with tempfile.NamedTemporaryFile() as message, tempfile.NamedTemporaryFile() as sig:
        message.write(pae), message.flush()
        sig.write(signature), sig.flush()
        ecdsa = openssl("dgst", "-sha256", "-verify", key, "-signature", sig.name, message.name)
        if not ecdsa and not openssl("pkeyutl", "-verify", "-pubin", "-inkey", key, "-rawin",
                                     "-in", message.name, "-sigfile", sig.name):
            raise Broken("a checkpoint is not signed by the key, or was changed")
    return json.loads(payload)


def verify(lines, key, head):
    first, last, previous, log, confirmed = None, 0, "00" * 32, None, None
    for line in lines:
        line = json.loads(line)
        if entry := line.get("entry"):
            sequence = entry["sequence"]
            if entry_hash(entry) != entry["hash"]:
                raise Broken(f"entry {sequence} was changed")
            if first is None:
                # What an export begins with that is not the first of all is believed.
                first, last = sequence, sequence - 1
                previous = previous if sequence == 1 else entry["previous"]
            if sequence != last + 1:
                raise Broken(f"entry {sequence} stands where entry {last + 1} belongs")
            if entry["previous"] != previous:
                raise Broken(f"entry {sequence} does not follow the entry before it")
            last, previous = sequence, entry["hash"]
            if head and head[0] == sequence and head[1] != previous:
                raise Broken(f"entry {sequence} is not the one that is known")
        elif envelope := line.get("checkpoint"):
            if not key:
                continue
            checkpoint = signed(envelope, key)
            log = log or checkpoint["log"]
            if checkpoint["version"] != 1 or checkpoint["log"] != log:
                raise Broken("a checkpoint is of another log")
            if first is not None and checkpoint["sequence"] < first:
                continue
            if checkpoint["sequence"] > last:
                raise Broken(f"entries {last + 1} to {checkpoint['sequence']} are missing")
            if checkpoint["sequence"] != last:
                raise Broken(f"a checkpoint for entry {checkpoint['sequence']} is elsewhere")
            if checkpoint["hash"] != previous:
                raise Broken(f"entry {last} is not the one that was signed")
            confirmed = last
        else:
            raise Broken("a line is neither an entry nor a checkpoint")
    if first is None:
        raise Broken("there is no entry")
    if head and head[0] > last:
        raise Broken(f"entries {last + 1} to {head[0]} are missing")
    if key and confirmed is None:
        raise Broken("no checkpoint by the key")
    return first, last, previous, confirmed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("log")
    parser.add_argument("--key", help="public key in PEM, of the server")
    parser.add_argument("--head", help="SEQUENCE:HASH of an entry that must be there")
    arguments = parser.parse_args()
    head = None
    if arguments.head:
        sequence, _, digest = arguments.head.partition(":")
        head = (int(sequence), digest)
    number = 0

    def lines():
        nonlocal number
        with open(arguments.log, "rb") as file:
            for number, line in enumerate(file, 1):
                yield line

    try:
        first, last, digest, confirmed = verify(lines(), arguments.key, head)
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    except (Broken, KeyError, TypeError, AttributeError, ValueError, struct.error) as error:
        print(f"{arguments.log}, line {number}: {error}", file=sys.stderr)
        return 1
    print(f"entries {first} to {last} hold, {'signed up to ' + str(confirmed) if confirmed else 'nothing of it is signed'}")
    print(f"head {last}:{digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
