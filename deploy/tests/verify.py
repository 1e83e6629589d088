"""Verifies the envelope of a bundle with securesystemslib: verify.py BUNDLE KEY."""

import json
import sys

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

envelope = json.load(open(sys.argv[1]))["dsseEnvelope"]
key = load_pem_public_key(open(sys.argv[2], "rb").read())
key = SSlibKey.from_crypto(key, keyid=envelope["signatures"][0]["keyid"])
Envelope.from_dict(envelope).verify([key], 1)
