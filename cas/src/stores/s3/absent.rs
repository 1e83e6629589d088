//! Stands in for S3 where that was left out of the build: its SDK is a sixth of all that is compiled.

use std::convert::Infallible;

use async_trait::async_trait;
use bytes::Bytes;

use super::config::S3Config;
use super::stats::S3Stats;
use crate::blob::{BlobStream, BlobWriter};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::stores::indexed::{Generation, Listed, Objects};

/// Never made: whoever configures S3 is told so at the start.
#[derive(Clone)]
pub struct S3Objects {
    never: Infallible,
}

impl S3Objects {
    /// Errors: `Config`, always.
    pub async fn open(config: &S3Config) -> Result<Self, StoreError> {
        Self::connect(config).await
    }

    /// Errors: `Config`, always.
    pub async fn connect(config: &S3Config) -> Result<Self, StoreError> {
        Err(StoreError::config(format!(
            "s3://{}: this binary was built without S3; build it with the default features",
            config.bucket
        )))
    }

    pub async fn check(&self) -> Result<(), StoreError> {
        match self.never {}
    }

    pub fn stats(&self) -> S3Stats {
        match self.never {}
    }
}

#[async_trait]
impl Objects for S3Objects {
    async fn put(&self, _: &Digest, _: Generation, _: Bytes) -> Result<(), StoreError> {
        match self.never {}
    }

    async fn writer(&self, _: &Digest, _: Generation) -> Result<Box<dyn BlobWriter>, StoreError> {
        match self.never {}
    }

    async fn read(
        &self,
        _: &Digest,
        _: Generation,
        _: u64,
        _: Option<u64>,
    ) -> Result<BlobStream, StoreError> {
        match self.never {}
    }

    async fn copy(&self, _: &Digest, _: Generation, _: Generation) -> Result<(), StoreError> {
        match self.never {}
    }

    async fn delete(&self, _: &[(Digest, Generation)]) -> Result<(), StoreError> {
        match self.never {}
    }

    async fn generations(&self, _: &Digest) -> Result<Vec<Generation>, StoreError> {
        match self.never {}
    }

    async fn list(&self, _: Option<String>) -> Result<(Vec<Listed>, Option<String>), StoreError> {
        match self.never {}
    }

    async fn now(&self) -> Result<u64, StoreError> {
        match self.never {}
    }

    async fn mark(&self) -> Result<Option<u64>, StoreError> {
        match self.never {}
    }

    async fn set_mark(&self, _: u64) -> Result<(), StoreError> {
        match self.never {}
    }

    async fn sweep(&self, _: u64) -> Result<u64, StoreError> {
        match self.never {}
    }
}
