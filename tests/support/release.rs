//! A release that was made by hand and exported, for servers that take it in.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use kiln_cas::{Digest, DigestFunction};
use kiln_deploy::oci::{
    ContentDigest, Descriptor, EMPTY_CONFIG, EMPTY_TYPE, LAYER_TYPE, LayerEntry, LayerNode,
    MANIFEST_TYPE, Manifest, write_layer,
};
use kiln_deploy::provenance::{
    ActionRecord, Archive, BuildRequest, Limits, Listing, Revision, Root, SLSA_PREDICATE, SignedBy,
    provenance, read_index,
};
use kiln_deploy::releases::{DirectoryExport, Release, bundle_manifest, closure_manifest, export};
use kiln_deploy::resource::ResourceDescriptor;
use kiln_deploy::signing::{Attestation, Signer, Statement};
use kiln_deploy::timestamp::Timestamp;

/// An archive of a build server that has built nothing.
struct Nothing;

impl Archive for Nothing {
    type Error = Infallible;

    fn producers(&self, contents: &[Digest]) -> Result<Vec<Vec<Arc<ActionRecord>>>, Infallible> {
        Ok(contents.iter().map(|_| Vec::new()).collect())
    }

    fn is_used(&self, _: &ActionRecord) -> bool {
        false
    }

    fn directories(&self, directories: &[Digest]) -> Result<Vec<Option<Listing>>, Infallible> {
        Ok(directories.iter().map(|_| None).collect())
    }
}

#[derive(Default)]
struct Blobs(HashMap<ContentDigest, Vec<u8>>);

impl Blobs {
    fn put(&mut self, media_type: &str, data: &[u8]) -> Descriptor {
        let descriptor = Descriptor::of(media_type, data);
        self.0.insert(descriptor.digest.clone(), data.to_owned());
        descriptor
    }
}

fn request() -> BuildRequest {
    BuildRequest {
        builder: "https://kiln.example".to_owned(),
        builder_version: "1".to_owned(),
        invocation: "i".to_owned(),
        instance: String::new(),
        target: "//:app".to_owned(),
        revision: Revision::default(),
        signed_by: SignedBy::Server,
        started: Timestamp::from_unix(0),
        finished: Timestamp::from_unix(1),
        signed: Timestamp::from_unix(2),
    }
}

/// Exports a release of this name with one program, `bin/app`. Returns the digest of its manifest.
pub fn export_program(name: &str, program: &str, key: &dyn Signer, into: &Path) -> ContentDigest {
    let mut blobs = Blobs::default();
    let config = blobs.put(EMPTY_TYPE, EMPTY_CONFIG);
    let node = LayerNode::File { content: (), size: program.len() as u64, is_executable: true };
    let entries = vec![LayerEntry { path: "bin/app".to_owned(), node }];
    let mut layer = Vec::new();
    write_layer(entries, &mut |()| Ok(Cursor::new(program.to_owned())), &mut layer).unwrap();
    let layer = blobs.put(LAYER_TYPE, &layer);
    let manifest = Manifest::image(config, vec![layer]).write().unwrap();
    let subject = blobs.put(MANIFEST_TYPE, &manifest);
    let digest = DigestFunction::Sha256.digest(program.as_bytes());
    let root = Root { path: "bin/app".to_owned(), digest };
    let mut parts = Vec::new();
    let mut sink = |_: &str, part: Vec<u8>| {
        parts.push(part);
        Ok(())
    };
    let made = provenance(&Nothing, &[root], &request(), Limits::default(), &mut sink).unwrap();
    for part in parts.iter().chain([&made.index]) {
        blobs.put("", part);
    }
    let about = ResourceDescriptor::new(name, "sha256", subject.digest.hex());
    let statement = Statement::new(vec![about], SLSA_PREDICATE, made.predicate).unwrap();
    let bundle = Attestation::sign(&statement, key).unwrap();
    blobs.put("", &bundle);
    let attestation = bundle_manifest(&bundle, SLSA_PREDICATE, &subject).unwrap();
    let parts = read_index(&made.index).unwrap().parts;
    let list = closure_manifest(&made.index, &parts, &subject).unwrap().unwrap();
    blobs.put("", &attestation.1);
    blobs.put("", &list.1);
    let digest = subject.digest.clone();
    let release = Release {
        name: name.parse().unwrap(),
        subject,
        attestations: vec![attestation.0, list.0],
        invocation: "i".to_owned(),
        target: "//:app".to_owned(),
        created: Timestamp::from_unix(2),
    };
    let open = |digest: &ContentDigest| -> io::Result<Box<dyn Read>> {
        let data = blobs.0.get(digest).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(data.clone())))
    };
    export(&release, &open, &mut DirectoryExport::new(into)).unwrap();
    digest
}
