//! A server that tells each run of a test whether it shall pass.

use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub struct Oracle {
    pub port: u16,
    failures: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    silent: Arc<Mutex<()>>,
}

impl Oracle {
    /// Starts the oracle on a free port. At first it lets every run pass.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (failures, asked) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let silent = Arc::<Mutex<()>>::default();
        let (left, count, speaks) = (failures.clone(), asked.clone(), silent.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                drop(speaks.lock().unwrap_or_else(PoisonError::into_inner));
                let fewer = |left: usize| left.checked_sub(1);
                let fails = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok();
                // The run that asked may have ended already, so a failed write is no error.
                let _ = writeln!(stream, "{}", if fails { "fail" } else { "pass" });
            }
        });
        Self { port, failures, asked, silent }
    }

    /// Lets the next `runs` runs fail. All runs after them pass again.
    pub fn fail(&self, runs: usize) {
        self.failures.store(runs, Ordering::SeqCst);
    }

    /// Lets every run that asks wait for its answer until the returned guard is dropped.
    pub fn silence(&self) -> MutexGuard<'_, ()> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how often runs have asked the oracle.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}
