//! What is written for a balancer: a comment with the split that it was made of, and what the balancer reads.

use sha2::{Digest as _, Sha256};

use super::error::TrafficError;
use super::split::{Checked, check};
use crate::encoding::hex;
use crate::rollouts::parts::{Place, Split};

/// Bytes of what is rendered: of [`super::MAX_MEMBERS`] with the longest names.
pub const MAX_BYTES: usize = 16 << 20;
const FIRST: &str = "# Written by kiln, which overwrites it.\n";
const SPLIT: &str = "# split ";
const TAG: &str = "# tag ";

#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    pub split: Split,
    pub checked: Checked,
    /// Names what was rendered.
    pub tag: String,
    pub text: String,
}

impl Document {
    /// `render` is given the tag.
    pub fn new(split: &Split, checked: Checked, render: impl Fn(&Checked, &str) -> String) -> Self {
        let digest = Sha256::digest(format!("{}\n{}", checked.line, render(&checked, "")));
        let tag = hex(&digest);
        let text =
            format!("{FIRST}{SPLIT}{}\n{TAG}{tag}\n{}", checked.line, render(&checked, &tag));
        Self { split: split.clone(), checked, tag, text }
    }

    /// What was rendered before. `None`: it was not made here, or does not fit the place.
    pub fn read(text: String, place: &Place, most: u32) -> Option<Self> {
        let mut lines = text.strip_prefix(FIRST)?.lines();
        let split = lines.next()?.strip_prefix(SPLIT)?;
        let tag = lines.next()?.strip_prefix(TAG)?.to_owned();
        let split: Split = serde_json::from_str(split).ok()?;
        let checked = check(place, &split, most).ok()?;
        Some(Self { split, checked, tag, text })
    }
}

/// Whether a text was written here, for whatever place.
pub fn is_own(text: &str) -> bool {
    text.starts_with(FIRST)
}

/// Checks that the document is small enough to be read again.
pub fn fits(document: &Document) -> Result<(), TrafficError> {
    if document.text.len() <= MAX_BYTES {
        return Ok(());
    }
    Err(TrafficError::Split(format!(
        "it takes {} bytes; at most {MAX_BYTES} are",
        document.text.len()
    )))
}
