//! A blob store on the other side of a REAPI connection.

mod batch;
mod bytestream;
mod calls;
mod store;
mod transfers;

pub use store::RemoteStore;
pub use transfers::{TransferFigures, Transfers};
