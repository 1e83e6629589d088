//! Uploads in parts, kept as records: any frontend of a fleet can take the next part.

use kiln_cas::Digest;
use kiln_cas::blob::SharedBlobStore;
use kiln_cas::records::{Expect, Record, Version, Write};
use ring::rand::{SecureRandom, SystemRandom};

use super::body::Body;
use super::error::{RegistryError, is_conflict};
use super::keys::{self, UPLOADS};
use super::model::{Link, delete, put, read, written};
use super::registry::Registry;
use crate::encoding::hex;
use crate::oci::{ContentDigest, Repository};
use crate::registry::ranges::Span;
use crate::registry::uploads::{PIECES_OF_RECORD, PartError, Upload, decode, encode, has_room};

/// Bytes of an id, which is all that a client needs to go on with an upload.
const ID: usize = 16;

/// The end of an upload, which may bring a last part.
pub struct Ending<'a> {
    pub digest: &'a ContentDigest,
    pub span: Option<Span>,
    /// Bytes that the part has, where that is known.
    pub length: Option<u64>,
    pub body: Body,
}

impl Registry {
    /// Begins an upload and gives its id. Those that are over are removed first.
    pub async fn begin_upload(&self, repository: &Repository) -> Result<String, RegistryError> {
        let (limits, now) = (self.parts.uploads, self.now());
        let listed = self.parts.records.list(UPLOADS, None, false, limits.count + 1).await?;
        let (mut open, mut unread) = (Vec::with_capacity(listed.len()), 0);
        for record in &listed {
            let Some(upload) = self.readable(record, read::<Upload>(&record.value)) else {
                // It takes up room, as nobody knows that it is over.
                unread += 1;
                continue;
            };
            match upload.is_over(now, limits.age) {
                true => self.drop_upload(record, &upload).await?,
                false => open.push(upload),
            }
        }
        if open.len() + unread >= limits.count || !has_room(open.iter(), &limits, now) {
            return Err(RegistryError::TooManyUploads);
        }
        let id = fresh_id()?;
        let value = written(&Upload::begun(now))?;
        let write = put(keys::upload(repository, &id), Expect::Absent, value);
        self.parts.records.write(vec![write]).await?;
        Ok(id)
    }

    pub async fn upload(&self, repository: &Repository, id: &str) -> Result<Upload, RegistryError> {
        Ok(self.find_upload(repository, id).await?.0)
    }

    async fn find_upload(
        &self,
        repository: &Repository,
        id: &str,
    ) -> Result<(Upload, Version), RegistryError> {
        let record = self.record(&keys::upload(repository, id)).await?;
        let record = record.ok_or(RegistryError::NoUpload)?;
        let upload: Upload = read(&record.value)?;
        match upload.is_over(self.now(), self.parts.uploads.age) {
            true => Err(RegistryError::NoUpload),
            false => Ok((upload, record.version)),
        }
    }

    /// Takes the next part.
    pub async fn add_part(
        &self,
        store: &SharedBlobStore,
        repository: &Repository,
        id: &str,
        span: Option<Span>,
        body: Body,
    ) -> Result<Upload, RegistryError> {
        let (upload, version) = self.find_upload(repository, id).await?;
        upload.admit(span)?;
        self.admit_all().await?;
        let part = self.take_pieces(store, body, upload.size).await?;
        let grown = upload.with(span, &part, self.now())?;
        let key = keys::upload(repository, id);
        let mut writes = vec![put(key, Expect::Version(version), written(&grown)?)];
        writes.extend(self.piece_records(id, &upload, part).await?);
        match self.parts.records.write(writes).await {
            Ok(_) => Ok(grown),
            Err(error) if is_conflict(&error) => {
                let (now, _) = self.find_upload(repository, id).await?;
                Err(PartError::Order { has: now.size, first: upload.size }.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether all uploads together may have more bytes.
    async fn admit_all(&self) -> Result<(), RegistryError> {
        let limits = self.parts.uploads;
        let listed = self.parts.records.list(UPLOADS, None, false, limits.count + 1).await?;
        let mut bytes = 0u64;
        for record in &listed {
            let upload = self.readable(record, read::<Upload>(&record.value));
            bytes = bytes.saturating_add(upload.map_or(0, |it| it.size));
        }
        match bytes >= limits.bytes {
            true => Err(RegistryError::TooManyUploads),
            false => Ok(()),
        }
    }

    async fn piece_records(
        &self,
        id: &str,
        upload: &Upload,
        part: Vec<Digest>,
    ) -> Result<Vec<Write>, RegistryError> {
        let mut all = Vec::new();
        let mut next = upload.records().end;
        if let Some(open) = upload.open_record() {
            next = open;
            all = self.pieces_of(id, open..open + 1).await?;
        }
        all.extend(part);
        let records = all.chunks(PIECES_OF_RECORD as usize).zip(next..);
        let write = |(pieces, record): (&[Digest], u64)| {
            put(keys::pieces(id, record), Expect::Anything, encode(pieces).into())
        };
        Ok(records.map(write).collect())
    }

    async fn pieces_of(
        &self,
        id: &str,
        records: std::ops::Range<u64>,
    ) -> Result<Vec<Digest>, RegistryError> {
        let mut pieces = Vec::new();
        for record in records {
            let record = self.record(&keys::pieces(id, record)).await?;
            let record = record.ok_or(RegistryError::NoUpload)?;
            pieces.extend(decode(&record.value).ok_or(RegistryError::Damaged)?);
        }
        Ok(pieces)
    }

    /// Ends an upload: its bytes are a blob of the repository from now on. Other bytes than the digest names end it, too; a
    /// part that cannot come next does not.
    pub async fn finish_upload(
        &self,
        store: &SharedBlobStore,
        repository: &Repository,
        id: &str,
        ending: Ending<'_>,
    ) -> Result<(), RegistryError> {
        let Ending { digest, span, length, body } = ending;
        let (upload, version) = self.find_upload(repository, id).await?;
        upload.admit(span)?;
        if upload.size == 0 && length.is_some_and(|it| it > 0) && span.is_none() {
            let pushed = self.push_blob(store, repository, digest, length, body).await;
            self.cancel_if(repository, id, &pushed).await?;
            return pushed;
        }
        let part = self.take_pieces(store, body, upload.size).await?;
        upload.with(span, &part, self.now())?;
        let mut pieces = self.pieces_of(id, upload.records()).await?;
        pieces.extend(part);
        let assembled = self.assemble(store, digest, &pieces).await;
        if assembled.is_err() {
            self.cancel_if(repository, id, &assembled).await?;
        }
        let link = put(
            keys::blob(repository, digest),
            Expect::Anything,
            written(&Link::of(digest, &assembled?))?,
        );
        let mut writes = removal(keys::upload(repository, id), version, id, &upload);
        writes.push(link);
        match self.parts.records.write(writes).await {
            Err(error) if is_conflict(&error) => Err(RegistryError::NoUpload),
            done => Ok(done.map(drop)?),
        }
    }

    /// Ends an upload that has come to an end by itself.
    async fn cancel_if<T>(
        &self,
        repository: &Repository,
        id: &str,
        ended: &Result<T, RegistryError>,
    ) -> Result<(), RegistryError> {
        use RegistryError::{NoUpload, OtherBytes, TooLarge};
        match ended {
            Ok(_) | Err(OtherBytes(_) | NoUpload | TooLarge { .. }) => {
                match self.cancel_upload(repository, id).await {
                    Err(NoUpload) => Ok(()),
                    done => done,
                }
            }
            Err(_) => Ok(()),
        }
    }

    pub async fn cancel_upload(
        &self,
        repository: &Repository,
        id: &str,
    ) -> Result<(), RegistryError> {
        let record = self.record(&keys::upload(repository, id)).await?;
        let record = record.ok_or(RegistryError::NoUpload)?;
        let upload: Upload = read(&record.value)?;
        self.drop_upload(&record, &upload).await
    }

    /// Removes it, unless somebody does or goes on with it.
    async fn drop_upload(&self, record: &Record, upload: &Upload) -> Result<(), RegistryError> {
        let (_, id) = record.key.rsplit_once(':').ok_or(RegistryError::Damaged)?;
        let writes = removal(record.key.clone(), record.version, id, upload);
        match self.parts.records.write(writes).await {
            Err(error) if is_conflict(&error) => Ok(()),
            done => Ok(done.map(drop)?),
        }
    }
}

fn removal(key: String, version: Version, id: &str, upload: &Upload) -> Vec<Write> {
    let pieces = upload.records().map(|it| delete(keys::pieces(id, it), Expect::Anything));
    std::iter::once(delete(key, Expect::Version(version))).chain(pieces).collect()
}

/// A name that nobody can guess.
pub fn fresh_id() -> Result<String, RegistryError> {
    let mut bytes = [0; ID];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| kiln_cas::StoreError::unavailable("the kernel gives no random bytes"))?;
    Ok(hex(&bytes))
}
