//! The registry's address space, `/v2/`: the OCI distribution specification over HTTP. What it says and keeps is in
//! `kiln_deploy::registry`.

mod answers;
mod blobs;
pub mod challenge;
mod incoming;
mod lists;
mod manifests;
mod options;
mod owned;
mod requests;
mod routes;
mod state;
mod uploads;

pub use options::RegistryOptions;
pub use routes::router;
pub use state::{RegistryState, StateParts};
