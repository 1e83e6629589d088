//! Who calls, and what they may do.
//!
//! A request is taken in by [`Auth::caller`], which finds out who sent it; [`permissions`] says what
//! each way in asks of them; services ask [`access::RoleAuthorizer`] for the instance.

pub mod access;
mod authentication;
pub mod certificate;
pub mod credentials;
mod diag;
pub mod failures;
pub mod file;
pub mod jwt;
pub mod local;
pub mod pattern;
pub mod permissions;
pub mod policy;
pub mod roles;
mod verified;

pub use authentication::{Auth, AuthError, AuthOptions, Peer};
pub use failures::Failure;
