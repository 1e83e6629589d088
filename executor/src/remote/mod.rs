//! A worker far from its scheduler: leases over a session that reconnects.

mod complaints;
mod session;

pub use session::work_for;
