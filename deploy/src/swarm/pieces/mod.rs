//! The content of a release as pieces that are cut by content: two versions of a blob share most of them, and each is
//! verified by itself.
//!
//! What makes the list trusted: nothing has to. It says what to fetch and what each piece has to be; whether the pieces
//! together are what was signed is said by the digest of each blob, which is computed anew when its last piece is there, and by
//! the signatures over these. Who lies in a list causes work for one blob, and is found out by it.

mod cut;
mod cutting;
mod list;

pub use cut::{Cutter, pieces_of};
pub use cutting::{Cutting, CuttingError};
pub use list::{BlobPieces, ListProblem, MAX_LIST, MAX_PIECE, Piece, PieceList, Place};
