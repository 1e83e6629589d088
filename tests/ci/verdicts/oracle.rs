//! Says to each run of a test whether it is to pass.

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
    /// Everything passes at first.
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
                // Who asked may be gone.
                let _ = writeln!(stream, "{}", if fails { "fail" } else { "pass" });
            }
        });
        Self { port, failures, asked, silent }
    }

    /// So many more runs fail.
    pub fn fail(&self, runs: usize) {
        self.failures.store(runs, Ordering::SeqCst);
    }

    /// Whoever asks waits until this is dropped.
    pub fn silence(&self) -> MutexGuard<'_, ()> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}
