//! What a registry answers with. Rules without I/O are here; [`store`] keeps repositories in a store of blobs and
//! records. The documents themselves are in [`crate::oci`].

mod codes;
mod endpoint;
mod kept;
mod ownership;
mod ranges;
mod referrers;
pub mod store;
mod tags;
mod uploads;

pub use codes::{Code, ErrorDocument};
pub use endpoint::{Endpoint, NoEndpoint, instance_of};
pub use ownership::{Owned, SharedOwned};
pub use ranges::{Span, Wanted, wanted};
pub use referrers::{Referrers, referrer_of};
pub use tags::{MAX_TAGS_PAGE, TagsPage, page_of_tags};
pub use uploads::{PIECE, PartError, Upload, UploadLimits};
