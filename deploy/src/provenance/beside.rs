//! Two things at the same time.

use std::panic::resume_unwind;

/// Runs `other` on a thread of its own while `here` runs on this one, and returns what both gave. The thread has
/// ended by then, and a panic of it goes on in this one.
pub fn beside<T: Send, U>(other: impl FnOnce() -> T + Send, here: impl FnOnce() -> U) -> (T, U) {
    std::thread::scope(|scope| {
        let other = scope.spawn(other);
        let here = here();
        match other.join() {
            Ok(other) => (other, here),
            Err(panic) => resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_done_and_a_panic_of_the_other_goes_on_here() {
        assert_eq!(beside(|| 1, || 2), (1, 2));
        let panics = || beside(|| -> u8 { panic!("as the test has it") }, || 2);
        assert!(std::panic::catch_unwind(panics).is_err());
    }
}
