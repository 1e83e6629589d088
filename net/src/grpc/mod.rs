//! The client's side of gRPC: connections with TLS and tokens, and what to make of failed calls.
//!
//! | module | what it does |
//! | --- | --- |
//! | `connections` | connections to one server or fleet, and which address is in use |
//! | `connector` | TLS below them |
//! | `token` | bearer tokens |
//! | `explain` | what failed calls and connections mean |
//! | `failures` | which failed calls are repeated, and when |

mod connections;
mod connector;
mod explain;
mod failures;
mod token;

pub use connections::{AddressError, Connection, Connections, Credentials, MAX_MESSAGE, address};
pub use connector::connector;
pub use explain::{innermost, of_other_protocol, unheard};
pub use failures::{Failures, TRIES, is_refusal, is_transient, is_unheard, pause};
pub use token::{Token, TokenError};
