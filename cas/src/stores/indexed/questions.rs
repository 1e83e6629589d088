//! Questions about many items that go to the index together: callers bring lists, the lists of a
//! batch become one, and each caller gets the answers to its own items.

use futures_util::future::BoxFuture;

use crate::batch::{Batcher, CutOff, Rules};
use crate::error::StoreError;

type Answers<O> = Result<Vec<O>, StoreError>;

/// Lists of `I`, of which each item is answered with an `O`.
pub struct Questions<I, O>(Batcher<Vec<I>, Answers<O>>);

impl<I: Send + 'static, O: Send + 'static> Questions<I, O> {
    /// `ask` answers each item, in order.
    pub fn new<F>(rules: impl Into<Rules<Vec<I>>>, ask: F) -> Self
    where
        F: Fn(Vec<I>) -> BoxFuture<'static, Answers<O>> + Send + Sync + 'static,
    {
        Self(Batcher::new(rules, move |lists: Vec<Vec<I>>| {
            let lengths: Vec<_> = lists.iter().map(Vec::len).collect();
            let asked = ask(lists.into_iter().flatten().collect());
            Box::pin(async move { share(&lengths, asked.await) })
        }))
    }

    /// Asks about all of `items`. Errors: those of the index, which are told to all whose lists
    /// went out together; `Unavailable` when the process ends.
    pub async fn ask(&self, items: Vec<I>, weight: usize) -> Answers<O> {
        self.0.call(items, weight).await.map_err(cut_off)?
    }

    /// [`Questions::ask`] about a single item.
    pub async fn ask_one(&self, item: I, weight: usize) -> Result<O, StoreError> {
        let mut answers = self.ask(vec![item], weight).await?;
        answers.pop().ok_or_else(|| cut_off(CutOff))
    }
}

fn cut_off(_: CutOff) -> StoreError {
    StoreError::unavailable("a call to the index was cut off: its process is ending")
}

/// Gives each list its answers, in order.
fn share<O>(lengths: &[usize], answers: Answers<O>) -> Vec<Answers<O>> {
    let asked: usize = lengths.iter().sum();
    let mut answers = match answers {
        Ok(answers) if answers.len() == asked => answers.into_iter(),
        Ok(answers) => {
            let answered = answers.len();
            let error = format!("{asked} questions to the index got {answered} answers");
            return lengths.iter().map(|_| Err(StoreError::corrupt(error.clone()))).collect();
        }
        Err(error) => return lengths.iter().map(|_| Err(error.clone())).collect(),
    };
    lengths.iter().map(|length| Ok(answers.by_ref().take(*length).collect())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Limits;

    const LIMITS: Limits = Limits { batch: 10, waiting: Some(20), flights: 1 };

    /// Doubles numbers; 13 fails, and 0 is not answered.
    fn doubler() -> Questions<u32, u32> {
        Questions::new(LIMITS, |items: Vec<u32>| {
            Box::pin(async move {
                // Questions that arrive during this pause go out together.
                tokio::task::yield_now().await;
                match items.contains(&13) {
                    true => Err(StoreError::unavailable("unlucky")),
                    false => Ok(items.into_iter().filter(|it| *it > 0).map(|it| it * 2).collect()),
                }
            })
        })
    }

    #[tokio::test]
    async fn each_caller_gets_the_answers_to_its_own_items() {
        let subject = doubler();
        let lists = (1..9u32).map(|number| subject.ask(vec![number, number + 1, number + 2], 3));
        for (answers, number) in futures_util::future::join_all(lists).await.into_iter().zip(1..) {
            assert_eq!(answers.unwrap(), [2 * number, 2 * number + 2, 2 * number + 4]);
        }
        assert_eq!(subject.ask_one(7, 1).await.unwrap(), 14);
        assert!(subject.ask(Vec::new(), 0).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_error_is_told_to_all_of_its_batch_and_the_next_batch_goes_on() {
        let subject = doubler();
        let (one, other) = tokio::join!(subject.ask_one(2, 1), subject.ask_one(13, 1));
        for failed in [one, other] {
            assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
        }
        assert_eq!(subject.ask(vec![1, 2], 2).await.unwrap(), [2, 4]);
    }

    #[tokio::test]
    async fn answers_that_are_too_few_are_nobodys() {
        let failed = doubler().ask(vec![1, 0], 2).await;
        assert!(matches!(failed, Err(StoreError::Corrupt(_))), "{failed:?}");
    }
}
