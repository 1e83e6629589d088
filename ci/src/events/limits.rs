//! Bounds on what is put together of one build.

/// What of a build is kept at most; what is beyond is counted. The stream itself has all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub targets: usize,
    /// Files in sets of outputs.
    pub files: usize,
    pub failed_actions: usize,
    pub attempts: u64,
    /// Bytes that are kept of the end of what was printed.
    pub progress: usize,
    /// Arguments, patterns, tags, items of the workspace status and the like, each.
    pub items: usize,
    /// Bytes that are kept of one text.
    pub text: usize,
    /// Bytes of all events from which something is kept, the end of what was printed apart.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            targets: 200_000,
            files: 200_000,
            failed_actions: 1000,
            attempts: 2_000_000,
            progress: 256 << 10,
            items: 4096,
            text: 16 << 10,
            bytes: 256 << 20,
        }
    }
}
