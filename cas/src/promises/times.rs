//! What a store writes down of a promise.

/// The holders of a promise when it is not known any more to whom it was made: it counts as made to all.
pub const ANYBODY: u32 = u32::MAX;

/// When something stored was used and until when it is promised, and to whom. Times are in seconds
/// since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub accessed: u32,
    pub leased_until: u32,
    /// Bits of the seats ([`super::SEATS`]) of the invocations that it was promised to.
    pub holders: u32,
}
