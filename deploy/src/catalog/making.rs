//! How a release is made, from what somebody asks for to its signatures.

use std::sync::Arc;

use kiln_cas::pins::Pin;
use kiln_cas::records::{Expect, Write};

use super::blocking::Blocking;
use super::content::Form;
use super::entry::{CatalogEntry, Draft, Rejection};
use super::error::CatalogError;
use super::older::reference;
use super::outputs::{Finder, Outputs, Wanted};
use super::prepare::{MAX_BLOBS, Plan, prepare};
use super::signing::{Presigned, Signed, messages, sign};
use super::{Catalog, MAX_RECORD, blocking, keys};
use crate::executions::{Invocation, RecordArchive};
use crate::json;
use crate::oci::Descriptor;
use crate::provenance::{Revision, SignedBy};
use crate::releases::ReleaseName;
use crate::signing::{PublicKey, Signer};

/// What somebody wants to release.
#[derive(Debug, Clone)]
pub struct Asked {
    pub instance: String,
    pub name: ReleaseName,
    pub invocation: String,
    pub outputs: Wanted,
    pub revision: Revision,
    pub form: Form,
    /// Operating system and architecture of packed files.
    pub platform: (String, String),
}

/// Who signs a release.
pub enum By {
    Server,
    /// Somebody with this key, who is told what to sign.
    Client,
}

/// A release that waits for signatures, or one that is there already.
pub enum Prepared {
    /// A draft, with what is to be signed; the server asks itself for that when it signs.
    Draft(Box<Draft>, Vec<Vec<u8>>),
    /// A release with the same content under the same name is there already.
    Existing(Box<CatalogEntry>),
}

/// Files that a draft names beside its blobs: its record holds both.
const MAX_WAITING_FILES: usize = 6_000;
const _: () = assert!(MAX_BLOBS * 90 + MAX_WAITING_FILES * 67 < MAX_RECORD - (100 << 10));

/// Nanoseconds before and behind a build in which losses may be of its executions.
const AROUND: i64 = 600_000_000_000;

impl Catalog {
    /// Makes everything but the signatures.
    pub async fn prepare(&self, asked: Asked, by: By) -> Result<Prepared, CatalogError> {
        let Asked { instance, invocation, .. } = &asked;
        let is_own = matches!(by, By::Server);
        self.check_name(instance, &asked.name).await?;
        let invocation = Invocation::read(&self.executions, instance, invocation).await?;
        if invocation.used.is_empty() {
            return Err(CatalogError::NoInvocation(asked.invocation));
        }
        let (store, blobs) = (&self.executions, &self.parts.blobs);
        let outputs =
            Finder { store, blobs, invocation: &invocation }.outputs(&asked.outputs).await?;
        let draft = self.draft(&asked, by, &invocation, outputs).await?;
        if let Some(existing) = self.existing(&draft).await? {
            let existing = match (is_own, self.key().and_then(|it| it.to_pem().ok())) {
                (true, Some(key)) => signed_by(existing, &key)?,
                _ => existing,
            };
            return Ok(Prepared::Existing(Box::new(existing)));
        }
        if is_own {
            return Ok(Prepared::Draft(Box::new(draft), Vec::new()));
        }
        self.wait_for_signatures(draft).await
    }

    async fn wait_for_signatures(&self, mut draft: Draft) -> Result<Prepared, CatalogError> {
        draft.holds.truncate(MAX_WAITING_FILES);
        let store = Blocking::new(self.parts.blobs.clone());
        let reference = self.reference(&draft.release.name);
        let (draft, messages) = blocking(move || {
            let messages = messages(&store, &draft, &reference)?;
            Ok((draft, messages))
        })
        .await?;
        let value = Some(json::write(&draft)?.into());
        let write = Write { key: keys::draft(&draft.id), expect: Expect::Absent, value };
        self.parts.records.write(vec![write]).await?;
        Ok(Prepared::Draft(Box::new(draft), messages))
    }

    async fn draft(
        &self,
        asked: &Asked,
        by: By,
        invocation: &Invocation,
        outputs: Outputs,
    ) -> Result<Draft, CatalogError> {
        let store = Blocking::new(self.parts.blobs.clone());
        // Whoever is asked hears of losses a little later than they happen.
        let (from, to) = (outputs.started - AROUND, outputs.finished + AROUND);
        let losses = self.executions.losses(from, to).await?;
        let unrecorded = losses.iter().map(|it| it.executions).sum();
        let blobs = self.parts.blobs.clone();
        let archive =
            RecordArchive::new(self.executions.clone(), blobs, invocation).missing(unrecorded);
        let plan = Plan {
            name: asked.name.clone(),
            instance: asked.instance.clone(),
            invocation: asked.invocation.clone(),
            target: asked.outputs.target.clone(),
            revision: asked.revision.clone(),
            form: asked.form,
            platform: asked.platform.clone(),
            signed_by: match by {
                By::Server => SignedBy::Server,
                By::Client => SignedBy::Client,
            },
            builder: self.parts.builder.clone(),
            version: self.parts.version.clone(),
            now: self.now(),
        };
        let known = self.layers.clone();
        blocking(move || prepare(&store, &known, &archive, &plan, &outputs)).await
    }

    /// What cosign's older signature calls the image.
    fn reference(&self, name: &ReleaseName) -> String {
        reference(&self.parts.builder, name.repository.as_str())
    }

    async fn existing(&self, draft: &Draft) -> Result<Option<CatalogEntry>, CatalogError> {
        let release = &draft.release;
        let built = (draft.source.as_deref(), draft.branch.as_deref());
        self.same_or_none(&draft.instance, &release.name, &release.subject, built).await
    }

    /// The release of this name, if it is the same, of the same commit and branch; another one of this name is an error.
    pub(super) async fn same_or_none(
        &self,
        instance: &str,
        name: &ReleaseName,
        subject: &Descriptor,
        built: (Option<&str>, Option<&str>),
    ) -> Result<Option<CatalogEntry>, CatalogError> {
        let Some(entry) = self.find(instance, name).await? else {
            return self.was_same(instance, name, subject).await;
        };
        let existing = &entry.release.subject.digest;
        let is_same = built == (entry.source.as_deref(), entry.branch.as_deref());
        if *existing != subject.digest || !is_same {
            let (name, existing) = (name.clone(), existing.clone());
            return Err(CatalogError::Taken { name, existing });
        }
        match &entry.rejected {
            Some(Rejection { reason, .. }) => {
                Err(CatalogError::Rejected { name: name.clone(), reason: reason.clone() })
            }
            None => Ok(Some(entry)),
        }
    }

    /// None: the name is free, or stood for the same content before that was removed.
    async fn was_same(
        &self,
        instance: &str,
        name: &ReleaseName,
        subject: &Descriptor,
    ) -> Result<Option<CatalogEntry>, CatalogError> {
        let gone = self.parts.records.get(&keys::gone(instance, name)).await?;
        let was = gone.and_then(|it| std::str::from_utf8(&it.value).ok()?.parse().ok());
        match was.filter(|it| *it != subject.digest) {
            Some(existing) => Err(CatalogError::Taken { name: name.clone(), existing }),
            None => Ok(None),
        }
    }

    /// Signs with the server's key what was prepared for it, and makes it visible.
    pub async fn sign_here(&self, draft: Draft, who: &str) -> Result<CatalogEntry, CatalogError> {
        let key = self.parts.key.clone().ok_or(CatalogError::NoKey)?;
        self.finish(draft, key, who).await
    }

    /// Makes a release visible whose statements somebody signed elsewhere.
    pub async fn signed_elsewhere(
        &self,
        instance: &str,
        draft: &str,
        signed: (PublicKey, Vec<Vec<u8>>),
        who: &str,
    ) -> Result<CatalogEntry, CatalogError> {
        let draft = self.waiting(instance, draft).await?;
        let (key, signatures) = signed;
        let wanted = draft.statements.len() + 1;
        if signatures.len() != wanted {
            return Err(CatalogError::Signatures(signatures.len(), wanted));
        }
        self.finish(draft, Arc::new(Presigned::new(key, signatures)), who).await
    }

    /// What the release of a draft is to be called.
    pub async fn name_of_draft(
        &self,
        instance: &str,
        draft: &str,
    ) -> Result<ReleaseName, CatalogError> {
        Ok(self.waiting(instance, draft).await?.release.name)
    }

    async fn waiting(&self, instance: &str, id: &str) -> Result<Draft, CatalogError> {
        let none = || CatalogError::NoDraft(id.chars().take(100).collect());
        let is_id = crate::encoding::is_hex(id, 32);
        let found = if is_id { self.parts.records.get(&keys::draft(id)).await? } else { None };
        let draft: Draft = json::read(&found.ok_or_else(none)?.value, MAX_RECORD)?;
        // For as long as it is there: whoever removes it goes by no clock that another server could have set.
        (draft.instance == instance).then_some(draft).ok_or_else(none)
    }

    async fn finish(
        &self,
        draft: Draft,
        signer: Arc<dyn Signer>,
        who: &str,
    ) -> Result<CatalogEntry, CatalogError> {
        let public_key = signer.public_key().to_pem().map_err(|_| CatalogError::Stopped)?;
        if let Some(existing) = self.existing(&draft).await? {
            return signed_by(existing, &public_key);
        }
        let store = Blocking::new(self.parts.blobs.clone());
        let reference = self.reference(&draft.release.name);
        let (draft, signed) = blocking(move || {
            let signed = sign(&store, &draft, &reference, &*signer)?;
            Ok((draft, signed))
        })
        .await?;
        let mut entry = self.entry(&draft, signed, public_key, who)?;
        let added = self.add(&mut entry, &draft.holds, "release.create", who).await?;
        let gone = Write { key: keys::draft(&draft.id), expect: Expect::Anything, value: None };
        self.parts.records.write(vec![gone]).await?;
        match added {
            true => Ok(entry),
            // Somebody else was faster. Their pins are called otherwise.
            false => {
                self.unpin(&entry).await?;
                let existing = self.existing(&draft).await?.ok_or(CatalogError::Stopped)?;
                signed_by(existing, &entry.public_key)
            }
        }
    }

    fn entry(
        &self,
        draft: &Draft,
        signed: Signed,
        public_key: String,
        who: &str,
    ) -> Result<CatalogEntry, CatalogError> {
        let mut release = draft.release.clone();
        release.attestations.extend(signed.attestations);
        // What is signed elsewhere may come an hour after it was prepared: it is there from now on.
        release.created = self.now();
        let signed_content = signed.content.into_iter();
        let mut content: Vec<_> = draft.content.iter().cloned().chain(signed_content).collect();
        content.sort();
        content.dedup();
        if content.len() > MAX_BLOBS {
            return Err(CatalogError::TooMany(MAX_BLOBS));
        }
        Ok(CatalogEntry {
            release,
            instance: draft.instance.clone(),
            source: draft.source.clone(),
            branch: draft.branch.clone(),
            level: draft.level.clone(),
            closure: draft.closure,
            public_key,
            made_by: who.to_owned(),
            pin: Pin::fresh_name(),
            content,
            tags: signed.tags,
            rejected: None,
        })
    }
}

/// The release that is there, if this key signed it: whoever signs with another one is not to think that he did.
pub(super) fn signed_by(existing: CatalogEntry, key: &str) -> Result<CatalogEntry, CatalogError> {
    if existing.public_key.trim() == key.trim() {
        return Ok(existing);
    }
    let named = PublicKey::from_pem(&existing.public_key).map(|it| it.id()).unwrap_or_default();
    Err(CatalogError::SignedOtherwise { name: existing.release.name, key: named })
}
