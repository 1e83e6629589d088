//! A blob store on the other side of a REAPI connection.

mod batches;
mod bytestream;
mod calls;
mod client;
mod store;
mod transfers;

pub use store::RemoteStore;
pub use transfers::{TransferFigures, Transfers};
