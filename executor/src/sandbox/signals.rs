//! Sets how this process handles signals, whatever was set by whoever started it.
#![allow(unsafe_code)] // sigaction is unsafe for what a handler may do

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Lets this process hear all signals, and see how its children ended: where SIGCHLD is ignored, the kernel
/// forgets that before anybody can ask. To be called before other threads are there.
pub fn own_signals() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of this process.
    let _ = unsafe { sigaction(Signal::SIGCHLD, &default) };
    let _ = SigSet::empty().thread_set_mask();
}
