use std::time::Duration;

/// One pipeline that went to one server and came back, or did not.
#[derive(Debug, Clone, Copy)]
pub struct Flush {
    /// Name of its first script or command.
    pub name: &'static str,
    /// Scripts and commands in it.
    pub calls: usize,
    pub elapsed: Duration,
    /// The server did not answer it.
    pub failed: bool,
}

/// Told of each round trip: for metrics. Must not block.
pub trait Observer: Send + Sync {
    fn flushed(&self, flush: &Flush);
}
