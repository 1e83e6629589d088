//! The formats of the Open Container Initiative: names, manifests, layers and image layouts, as their
//! specifications (image 1.1, distribution 1.1) say.
//!
//! The documents are read by structures of our own: what is pushed is kept and served byte for byte, so
//! that only what Kiln needs of it is looked at; what Kiln writes has one form, so that the same content has
//! the same digest.

mod descriptor;
mod digest;
mod document;
mod layer;
mod layer_check;
mod layout;
mod layout_check;
mod names;
mod paths;
#[cfg(test)]
mod tests;

pub use descriptor::{Descriptor, Platform};
pub use digest::{Algorithm, ContentDigest, DigestError, Hashing};
pub use document::{
    Document, DocumentError, DocumentKind, EMPTY_CONFIG, EMPTY_TYPE, INDEX_TYPE, Index,
    MANIFEST_TYPE, MAX_DOCUMENT_BYTES, Manifest, TITLE_ANNOTATION,
};
pub use layer::{LAYER_TYPE, LayerEntry, LayerError, LayerNode, layer_size_at_most, write_layer};
pub use layer_check::{LayerLimits, LayerProblem, check_layer};
pub use layout::{DirectoryLayout, LAYOUT_FILE, Layout, REF_NAME_ANNOTATION};
pub use layout_check::{
    CheckedLayout, LayoutError, LayoutLimits, MAX_INDEX_BYTES, check_blob, check_document,
    check_layout, read_blob, read_index,
};
pub use names::{NameError, Reference, Repository, Tag};
pub use paths::PathProblem;
