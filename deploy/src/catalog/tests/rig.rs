//! A build on records and blobs in memory, and the releases of its server.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kiln_cas::pins::Pins;
use kiln_cas::{Digest, SharedBlobStore};
use kiln_protos::events::Execution;

use super::super::sweep::AGE;
use super::super::{
    Asked, By, Catalog, CatalogEntry, CatalogError, CatalogParts, Form, Prepared, Wanted,
};
use crate::executions::tests::rig::{Rig, content, executed, later, wire};
use crate::provenance::{Revision, Source};
use crate::signing::{KeyRing, PublicKey, Scheme, SigningKey};

/// Trusts this key alone, at any time.
pub fn trusting(key: &PublicKey) -> KeyRing {
    KeyRing::single("given", key.clone())
}

pub const COMMIT: &str = "1234567890123456789012345678901234567890";

pub struct House {
    pub rig: Rig,
    pub catalog: Catalog,
    pub pins: Pins,
    key: Arc<SigningKey>,
}

impl House {
    pub async fn start() -> Self {
        let (key, _) = SigningKey::generate(Scheme::EcdsaP256).unwrap();
        Self::over(Rig::start().await, Arc::new(key))
    }

    /// Another server over the same stores, or the same one after a crash.
    pub fn again(&self) -> Self {
        Self::over(self.rig.beside(), self.key.clone())
    }

    /// The same server, which reaches its blobs through another store.
    pub fn over_blobs(&self, blobs: SharedBlobStore) -> Self {
        Self::over(Rig { blobs, ..self.rig.beside() }, self.key.clone())
    }

    fn over(rig: Rig, key: Arc<SigningKey>) -> Self {
        let pins = Pins::new(rig.blobs.clone(), rig.records.clone());
        let now = rig.now.clone();
        let catalog = Catalog::new(CatalogParts {
            records: rig.records.clone(),
            blobs: rig.blobs.clone(),
            pins: pins.clone(),
            clock: Arc::new(move || now.load(Ordering::Relaxed)),
            key: Some(key.clone()),
            builder: "http://kiln.example".to_owned(),
            version: "0.1.0".to_owned(),
        });
        Self { rig, catalog, pins, key }
    }

    /// A library and a program that is made of it, in an invocation.
    pub async fn build(&self, invocation: &str, text: &str) {
        let (library, program) = (format!("library {text}"), format!("program {text}"));
        for text in ["source", &library, &program] {
            self.put(text).await;
        }
        let lib = self
            .action(
                invocation,
                "//lib",
                &[("a.c", "source")],
                ("bazel-out/k8/bin/lib/a.o", &library),
            )
            .await;
        self.rig.events.publish(lib);
        let inputs = [("bazel-out", library.as_str())];
        let app =
            self.action(invocation, "//app", &inputs, ("bazel-out/k8/bin/app/app", &program)).await;
        self.rig.events.publish(later(app, 60));
        self.rig.executions.flush().await;
    }

    pub async fn put(&self, text: &str) -> Digest {
        let digest = content(text);
        self.rig.blobs.write(&digest, text.as_bytes().to_vec().into()).await.unwrap();
        digest
    }

    async fn action(
        &self,
        invocation: &str,
        target: &str,
        inputs: &[(&str, &str)],
        output: (&str, &str),
    ) -> Execution {
        let mut made = executed(invocation, target, &[output]);
        made.input_root = Some(wire(self.rig.directory(inputs).await));
        made
    }

    pub fn asked(&self, name: &str, invocation: &str) -> Asked {
        Asked {
            instance: String::new(),
            name: name.parse().unwrap(),
            invocation: invocation.to_owned(),
            outputs: Wanted { target: "//app:app".to_owned(), ..Wanted::default() },
            revision: Revision::released(Source::parse(&format!(
                "git+https://git.example/app@{COMMIT}"
            ))),
            form: Form::Any,
            platform: ("linux".to_owned(), "amd64".to_owned()),
        }
    }

    pub async fn create(&self, name: &str, invocation: &str) -> Result<CatalogEntry, CatalogError> {
        self.make(self.asked(name, invocation)).await
    }

    pub async fn make(&self, asked: Asked) -> Result<CatalogEntry, CatalogError> {
        match self.catalog.prepare(asked, By::Server).await? {
            Prepared::Existing(entry) => Ok(*entry),
            Prepared::Draft(draft, _) => self.catalog.sign_here(*draft, "somebody").await,
        }
    }

    /// Removes what is unfinished for so long that it will never be finished; says how many pins went.
    pub async fn swept(&self) -> usize {
        let first = self.catalog.sweep(Duration::ZERO).await.unwrap();
        assert_eq!(first, 0, "it may be finished yet");
        self.catalog.sweep(AGE).await.unwrap()
    }

    pub async fn names(&self) -> Vec<String> {
        let found = self.catalog.list("", None, 100).await.unwrap();
        found.iter().map(|it| it.release.name.to_string()).collect()
    }
}
