//! What a registry answers with: referrers and tags. The documents themselves are in [`crate::oci`].

mod referrers;
mod tags;

pub use referrers::{Fallback, Referrers, referrer_of};
pub use tags::{MAX_TAGS_PAGE, TagsPage, page_of_tags};
