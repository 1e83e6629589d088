"""Changes one byte of the payload of a bundle: tamper.py BUNDLE OUT."""

import base64
import json
import sys

bundle = json.load(open(sys.argv[1]))
envelope = bundle["dsseEnvelope"]
payload = base64.b64decode(envelope["payload"]).replace(b"kiln.example", b"kilm.example")
envelope["payload"] = base64.b64encode(payload).decode()
json.dump(bundle, open(sys.argv[2], "w"))
