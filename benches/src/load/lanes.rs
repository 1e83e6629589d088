//! The threads of the client, and the runtimes on them.

use std::num::NonZeroUsize;

use tokio::runtime::{Builder, Handle, Runtime};

use super::args::ClientRuntime;

/// Runtimes that connections are spread over. They end with the process.
pub struct Lanes {
    handles: Vec<Handle>,
    _multi: Option<Runtime>,
}

impl Lanes {
    pub fn start(kind: ClientRuntime, threads: NonZeroUsize) -> std::io::Result<Self> {
        if kind == ClientRuntime::Multi {
            let runtime =
                Builder::new_multi_thread().worker_threads(threads.get()).enable_all().build()?;
            return Ok(Self { handles: vec![runtime.handle().clone()], _multi: Some(runtime) });
        }
        let mut handles = Vec::new();
        for _ in 0..threads.get() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            handles.push(runtime.handle().clone());
            std::thread::Builder::new()
                .name("lane".to_owned())
                .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        }
        Ok(Self { handles, _multi: None })
    }

    /// The runtime for connection number `index`.
    pub fn for_connection(&self, index: usize) -> &Handle {
        &self.handles[index % self.handles.len()]
    }
}
