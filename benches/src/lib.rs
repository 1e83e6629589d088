//! Measures a REAPI server from outside.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`sample`] | the data that every work uses: blobs that need no storage to be told apart |
//! | [`floor`] | `kiln-floor`: a server that only answers |
//! | [`load`] | `kiln-load`: the load generator |
//! | [`events`] | `kiln-events`: build events from several streams |

pub mod events;
pub mod floor;
pub mod load;
pub mod sample;
