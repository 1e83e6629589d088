//! A release made by hand: two actions, a layer, everything that is signed about it, exported to a directory.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::io::{self, Cursor, Read};
use std::sync::Arc;

use kiln_cas::{Digest, DigestFunction};
use serde_json::{Map, Value};

use super::super::{
    DirectoryExport, Release, SPDX_PREDICATE, bundle_manifest, closure_manifest, export,
};
use crate::oci::{
    ContentDigest, Descriptor, DirectoryLayout, EMPTY_CONFIG, LAYER_TYPE, LayerEntry, LayerNode,
    MANIFEST_TYPE, Manifest, write_layer,
};
use crate::provenance::{
    ActionRecord, Archive, BuildRequest, Describes, Limits, Listing, Origin, Output, Provenance,
    Revision, Root, RootFileSystem, Run, SLSA_PREDICATE, Sandbox, SignedBy, Source, provenance,
    read_index, spdx,
};
use crate::resource::ResourceDescriptor;
use crate::signing::{Attestation, Signer, Statement};
use crate::timestamp::Timestamp;

pub const COMMIT: &str = "1234567890123456789012345678901234567890";
pub const SIGNED: i64 = 1_700_000_000;

/// An archive with one action that made everything out of one source.
struct OneAction;

fn content(text: &str) -> Digest {
    DigestFunction::Sha256.digest(text.as_bytes())
}

impl Archive for OneAction {
    type Error = Infallible;

    fn producers(&self, contents: &[Digest]) -> Result<Vec<Vec<Arc<ActionRecord>>>, Infallible> {
        let sandbox =
            Sandbox { root: RootFileSystem::Inputs, enforced: BTreeSet::from(Sandbox::ISOLATION) };
        let run = Run {
            command: content("command"),
            input_root: content("inputs"),
            worker: "worker".to_owned(),
            image: String::new(),
            platform: Vec::new(),
            sandbox,
            exit_code: 0,
        };
        let output = Output { path: "out/app".to_owned(), digest: content("app"), is_tree: false };
        let record = Arc::new(ActionRecord {
            id: "1".to_owned(),
            instance: String::new(),
            invocation: "i".to_owned(),
            target: "//:app".to_owned(),
            mnemonic: "Link".to_owned(),
            configuration: String::new(),
            action: content("action"),
            outputs: vec![output],
            origin: Origin::Ran(Box::new(run)),
            started: 0,
            finished: 1,
        });
        let of =
            |it: &Digest| if *it == content("app") { vec![record.clone()] } else { Vec::new() };
        Ok(contents.iter().map(of).collect())
    }

    fn is_used(&self, _: &ActionRecord) -> bool {
        true
    }

    fn directories(&self, directories: &[Digest]) -> Result<Vec<Option<Listing>>, Infallible> {
        let file = ("app.c".to_owned(), content("source"));
        let listing = Listing { files: vec![file], directories: Vec::new() };
        let of = |it: &Digest| (*it == content("inputs")).then(|| listing.clone());
        Ok(directories.iter().map(of).collect())
    }
}

/// A store of blobs, and what was signed about one of them.
#[derive(Default)]
pub struct Made {
    pub blobs: HashMap<ContentDigest, Vec<u8>>,
    pub attestations: Vec<Descriptor>,
}

impl Made {
    pub fn put(&mut self, media_type: &str, data: &[u8]) -> Descriptor {
        let descriptor = Descriptor::of(media_type, data);
        self.blobs.insert(descriptor.digest.clone(), data.to_owned());
        descriptor
    }

    /// An image with one layer of one file.
    pub fn image(&mut self, text: &str) -> Descriptor {
        let node = LayerNode::File { content: (), size: text.len() as u64, is_executable: true };
        let entries = vec![LayerEntry { path: "bin/app".to_owned(), node }];
        let mut layer = Vec::new();
        write_layer(entries, &mut |()| Ok(Cursor::new(text.to_owned())), &mut layer).unwrap();
        let layer = self.put(LAYER_TYPE, &layer);
        let config = self.put("application/vnd.oci.image.config.v1+json", EMPTY_CONFIG);
        self.put(MANIFEST_TYPE, &Manifest::image(config, vec![layer]).write().unwrap())
    }

    pub fn provenance(&mut self, signed_by: SignedBy) -> Provenance {
        let request = BuildRequest {
            builder: "https://kiln.example".to_owned(),
            builder_version: "0.1.0".to_owned(),
            invocation: "i".to_owned(),
            instance: String::new(),
            target: "//:app".to_owned(),
            revision: Revision::released(Source::parse(&format!(
                "git+https://git.example/app@{COMMIT}"
            ))),
            signed_by,
            started: Timestamp::from_unix(0),
            finished: Timestamp::from_unix(60),
            signed: Timestamp::from_unix(SIGNED),
        };
        let roots = [Root { path: "out/app".to_owned(), digest: content("app") }];
        let mut parts = Vec::new();
        let mut sink = |_: &str, data: Vec<u8>| {
            parts.push(data);
            Ok(())
        };
        let made = provenance(&OneAction, &roots, &request, Limits::default(), &mut sink).unwrap();
        for part in parts.iter().chain([&made.index]) {
            self.put("", part);
        }
        made
    }

    /// Signs a claim about the subject, and attaches it.
    pub fn attest(
        &mut self,
        subject: &Descriptor,
        kind: &str,
        claim: Map<String, Value>,
        key: &dyn Signer,
    ) {
        let resource = ResourceDescriptor::new("team/app:1.0", "sha256", subject.digest.hex());
        let statement = Statement::new(vec![resource], kind, claim).unwrap();
        let bundle = Attestation::sign(&statement, key).unwrap();
        self.attach(subject, kind, &bundle);
    }

    pub fn attach(&mut self, subject: &Descriptor, kind: &str, bundle: &[u8]) {
        self.put("", bundle);
        self.put("", EMPTY_CONFIG);
        let (descriptor, manifest) = bundle_manifest(bundle, kind, subject).unwrap();
        self.put("", &manifest);
        self.attestations.push(descriptor);
    }

    pub fn attach_closure(&mut self, subject: &Descriptor, index: &[u8]) {
        let parts = read_index(index).unwrap().parts;
        let (descriptor, manifest) = closure_manifest(index, &parts, subject).unwrap().unwrap();
        self.put("", &manifest);
        self.attestations.push(descriptor);
    }

    /// Everything that belongs to a release.
    pub fn complete(key: &dyn Signer) -> (Self, Descriptor) {
        Self::of("program", key)
    }

    /// A complete release of a program with this content.
    pub fn of(text: &str, key: &dyn Signer) -> (Self, Descriptor) {
        let mut made = Self::default();
        let subject = made.image(text);
        let of = made.provenance(SignedBy::Server);
        let describes = Describes {
            name: "app",
            sha256: subject.digest.hex(),
            created: Timestamp::from_unix(60),
            tool: "kiln",
        };
        let bill = serde_json::from_slice(&spdx(&describes, &of.packages).unwrap()).unwrap();
        made.attest(&subject, SLSA_PREDICATE, of.predicate.clone(), key);
        made.attest(&subject, SPDX_PREDICATE, bill, key);
        let signature = Statement::cosign_signature(&subject.digest.set()).unwrap();
        let bundle = Attestation::sign(&signature, key).unwrap();
        made.attach(&subject, &signature.predicate_type, &bundle);
        made.attach_closure(&subject, &of.index);
        (made, subject)
    }

    pub fn release(&self, subject: &Descriptor) -> Release {
        Release {
            name: "team/app:1.0".parse().unwrap(),
            subject: subject.clone(),
            attestations: self.attestations.clone(),
            invocation: "i".to_owned(),
            target: "//:app".to_owned(),
            created: Timestamp::from_unix(60),
        }
    }

    pub fn export(&self, subject: &Descriptor) -> (tempfile::TempDir, DirectoryLayout) {
        let directory = tempfile::tempdir().unwrap();
        let release = self.release(subject);
        let open = |digest: &ContentDigest| -> io::Result<Box<dyn Read>> {
            let data = self.blobs.get(digest).ok_or(io::ErrorKind::NotFound)?;
            Ok(Box::new(Cursor::new(data.clone())))
        };
        export(&release, &open, &mut DirectoryExport::new(directory.path())).unwrap();
        let layout = DirectoryLayout::new(directory.path());
        (directory, layout)
    }
}
