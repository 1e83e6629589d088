#!/usr/bin/env python3
"""Verifies what `kiln release export` wrote, with nothing of Kiln: Python's library and the program openssl.

    verify-release.py DIR --key PUBLIC.pem [--name team/app:1.4] [--source git+URL[@COMMIT]]

Every manifest and blob must hash to what names it; one manifest is the release; each bundle is signed once, by the key, about
that manifest; one of them is its SLSA provenance, whose list of the closure is there, whole. Layers must lead nowhere else. The
key is trusted at any time: a key that was revoked is not to be given.
Exit codes: 0 it holds, 1 it does not, 2 it cannot be read.
"""

import argparse
import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zlib

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
IN_TOTO = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
CLOSURE = "application/vnd.kiln.closure.index.v1+json"
DOCUMENTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json",
             "application/vnd.docker.distribution.manifest.v2+json",
             "application/vnd.docker.distribution.manifest.list.v2+json")
DIGEST = re.compile(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")
MAX_DOCUMENT = 4 << 20
MAX_BLOBS = 100_000


class Broken(Exception):
    pass


def read_json(data):
    """A document in which no member stands twice: two readers would take it for two things."""
    def members(pairs):
        if len({name for name, _ in pairs}) != len(pairs):
            raise Broken("a member stands twice in a document")
        return dict(pairs)
    return json.loads(data, object_pairs_hook=members)


class Layout:
    """An OCI image layout. `manifests` has each document that its index leads to, `layers` all else."""

    def __init__(self, directory):
        self.directory, self.manifests, self.layers = directory, {}, {}
        with open(os.path.join(directory, "oci-layout"), "rb") as file:
            if read_json(file.read(MAX_DOCUMENT)).get("imageLayoutVersion") != "1.0.0":
                raise Broken("the directory is no image layout")
        with open(os.path.join(directory, "index.json"), "rb") as file:
            self.index = read_json(file.read(MAX_DOCUMENT))["manifests"]
        waiting = list(self.index)
        while waiting:
            it = waiting.pop()
            if it.get("urls") or it["digest"] in self.manifests or it["digest"] in self.layers:
                continue
            if len(self.manifests) + len(self.layers) > MAX_BLOBS:
                raise Broken(f"it leads to more than {MAX_BLOBS} blobs")
            self.check(it)
            if it["mediaType"] not in DOCUMENTS:
                self.layers[it["digest"]] = it["mediaType"]
                continue
            document = self.manifests[it["digest"]] = read_json(self.read(it))
            if "manifests" in document and ("layers" in document or "config" in document):
                raise Broken(f"{it['digest']} is an index and a manifest at once")
            waiting += document.get("manifests", []) + document.get("layers", [])
            waiting += [document["config"]] if "config" in document else []

    def path(self, digest):
        if not DIGEST.fullmatch(digest):
            raise Broken(f"{digest} is no digest")
        return os.path.join(self.directory, "blobs", *digest.split(":"))

    def check(self, it):
        """Hashes content as it stands in the directory."""
        path, size = self.path(it["digest"]), 0
        hasher = hashlib.new(it["digest"].split(":")[0])
        try:
            with open(path, "rb") as file:
                while data := file.read(1 << 20):
                    hasher.update(data)
                    size += len(data)
        except FileNotFoundError:
            raise Broken(f"{it['digest']} is missing") from None
        if size != it["size"] or hasher.hexdigest() != it["digest"].split(":")[1]:
            raise Broken(f"{it['digest']} was changed")

    def read(self, it):
        """Small content. It is hashed once more: what is used is what was hashed."""
        with open(self.path(it["digest"]), "rb") as file:
            data = file.read(MAX_DOCUMENT * 8)
        if hashlib.new(it["digest"].split(":")[0], data).hexdigest() != it["digest"].split(":")[1]:
            raise Broken(f"{it['digest']} was changed, or is too large")
        return data


def openssl(*arguments):
    return subprocess.run(["openssl", *arguments], capture_output=True).returncode == 0


def statement(bundle, key):
    """The Statement of a bundle, if the key signed it (DSSE)."""
    bundle = read_json(bundle)
    envelope = bundle["dsseEnvelope"]
    kind, payload = envelope["payloadType"], base64.b64decode(envelope["payload"], validate=True)
    if bundle["mediaType"] != BUNDLE or kind != IN_TOTO or len(envelope["signatures"]) != 1:
        raise Broken("a bundle is none with one signature of a Statement")
    pae = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
    with tempfile.NamedTemporaryFile() as message, tempfile.NamedTemporaryFile() as sig:
        message.write(pae), message.flush()
        sig.write(signature), sig.flush()
        ecdsa = openssl("dgst", "-sha256", "-verify", key, "-signature", sig.name, message.name)
        if not ecdsa and not openssl("pkeyutl", "-verify", "-pubin", "-inkey", key, "-rawin",
                                     "-in", message.name, "-sigfile", sig.name):
            raise Broken("a bundle is not signed by the key, or was changed")
    found = read_json(payload)
    if found["_type"] != STATEMENT:
        raise Broken("a bundle holds no Statement of version 1")
    return found


def check_layer(path, digest):
    """No member of a layer may lead out of it, or be a device."""
    count = 0
    with tarfile.open(path, "r|*") as tar:
        for it in tar:
            count += 1
            parts = it.name.split("/")
            # A link of a directory leads on from there, a hard link from the root of the layer.
            way = parts[:-1] + it.linkname.split("/") if it.issym() else it.linkname.split("/")
            depth = 0
            for part in way if it.issym() or it.islnk() else []:
                depth += -1 if part == ".." else part not in ("", ".")
                if depth < 0:
                    raise Broken(f"{it.name} of {digest} leads out")
            absolute = it.name.startswith("/") or (it.islnk() or it.issym()) and it.linkname.startswith("/")
            if ".." in parts or absolute or it.isdev():
                raise Broken(f"{it.name} of {digest} leads out, or is a device")
    return count


def check_layers(layout):
    layers = entries = 0
    for digest, kind in layout.layers.items():
        if not re.search(r"\.tar(\+gzip|\.gzip)?$", kind):
            continue
        try:
            entries += check_layer(layout.path(digest), digest)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise Broken(f"{digest} cannot be unpacked: {error}") from None
        layers += 1
    return layers, entries


def check_closure(layout, provenance):
    """The list of the closure that the signed provenance names by its digest, part by part."""
    named = [it for it in provenance["buildDefinition"]["resolvedDependencies"] if it.get("mediaType") == CLOSURE]
    if len(named) != 1:
        raise Broken("the provenance does not name the list of its closure")
    digest = "sha256:" + named[0]["digest"]["sha256"]
    if layout.layers.get(digest) != CLOSURE:
        raise Broken(f"the list of the closure is missing ({digest})")
    index, kinds = read_json(layout.read({"digest": digest})), []
    for part in index["parts"]:
        if part["digest"] not in layout.layers:
            raise Broken(f"a part of the closure's list is missing ({part['digest']})")
        lines = layout.read(part).splitlines()
        if len(lines) != part["entries"]:
            raise Broken(f"{part['digest']} has {len(lines)} entries and not {part['entries']}")
        kinds += [read_json(line)["kind"] for line in lines]
    said = provenance["buildDefinition"]["internalParameters"]
    actions, sources = kinds.count("executed") + kinds.count("written"), kinds.count("source")
    written = kinds.count("written")
    for count in (index["actions"], index["sources"], index["written"]), (
            said["closure"]["actions"], said["notBuiltHere"]["uploadedSources"],
            said["notBuiltHere"]["writtenResults"]):
        if count != (actions, sources, written):
            raise Broken("the list of the closure is not what the provenance counts")
    return actions, sources, written


def verify(arguments):
    layout = Layout(arguments.directory)
    named = [it for it in layout.index if "build.kiln.release" in it.get("annotations", {})]
    if len(named) != 1:
        raise Broken(f"the index names {len(named)} releases")
    release, name = named[0]["digest"], named[0]["annotations"]["build.kiln.release"]
    if arguments.name not in (None, name):
        raise Broken(f"it is {name}")
    provenances, signed = [], []
    for digest, manifest in layout.manifests.items():
        if manifest.get("artifactType") != BUNDLE:
            continue
        if manifest["subject"]["digest"] != release:
            raise Broken(f"{digest} is about something else")
        for layer in manifest["layers"]:
            found = statement(layout.read(layer), arguments.key)
            about = [it for it in found["subject"] if it["digest"].get("sha256") == release.split(":")[1]]
            if not about:
                raise Broken(f"what {digest} signs is about something else")
            signed.append(found["predicateType"])
            if found["predicateType"] == PROVENANCE:
                provenances.append(found["predicate"])
                if any(it["name"] != name for it in about):
                    raise Broken(f"the provenance speaks of {about[0]['name']}, and the index of {name}")
    if len(provenances) != 1:
        raise Broken(f"{len(provenances)} provenances are signed by the key")
    source = provenances[0]["buildDefinition"]["externalParameters"].get("source", "")
    if arguments.source and source != arguments.source and not source.startswith(arguments.source + "@"):
        raise Broken(f"it is built from {source or 'a source that nobody named'}")
    layers, entries = check_layers(layout)
    actions, sources, written = check_closure(layout, provenances[0])
    print(f"ok content    {len(layout.manifests)} manifests and {len(layout.layers)} blobs")
    print(f"ok release    {name} is {release}")
    print(f"ok layers     {layers} with {entries} members")
    for kind in sorted(signed):
        print(f"ok signature  {kind}")
    print(f"ok closure    {actions} actions, {written} of them written by clients, and {sources} sources")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("--key", required=True, help="public key in PEM, of whoever signed the release")
    parser.add_argument("--name", help="the release that it must be")
    parser.add_argument("--source", help="what it must be built from")
    arguments = parser.parse_args()
    try:
        open(arguments.key, "rb").close()
        verify(arguments)
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    except (Broken, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        print(f"BROKEN {error if isinstance(error, Broken) else repr(error)}", file=sys.stderr)
        return 1
    print("verified")
    return 0


if __name__ == "__main__":
    sys.exit(main())
