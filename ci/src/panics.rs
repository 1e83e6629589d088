//! Panics of tasks for whose end others wait: unheard, these would wait for ever.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// Most characters that are kept of what a panic says.
const SHOWN: usize = 500;

/// A fault in this program ended some work, in these words. Whatever it held is dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fault of Kiln ended it: {0}")]
pub struct Panicked(String);

/// What the work comes to. Who begins it again has to begin with what is durable: what it shares with others may be half
/// done.
pub fn heard<T>(work: impl Future<Output = T>) -> impl Future<Output = Result<T, Panicked>> {
    AssertUnwindSafe(work).catch_unwind().map(|ended| ended.map_err(|panic| told(&*panic)))
}

fn told(panic: &(dyn Any + Send)) -> Panicked {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Panicked(text.unwrap_or("nobody knows why").chars().take(SHOWN).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer_as_any_other() {
        assert_eq!(heard(async { 1 }).await, Ok(1));
        for (number, said) in [(1, "a fault of Kiln ended it: odd: 1"), (2, "ended it: plain")] {
            let odd = heard(async move {
                tokio::task::yield_now().await;
                if number == 1 { panic!("odd: {number}") } else { panic!("plain") }
            });
            let ended: Result<(), _> = odd.await;
            assert!(ended.as_ref().is_err_and(|it| it.to_string().ends_with(said)), "{ended:?}");
        }
    }
}
