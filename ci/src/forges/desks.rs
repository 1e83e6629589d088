//! Asks queues: those of a server, or what stands in for them.

use async_trait::async_trait;
use kiln_net::causes::chain;

use super::decide::Order;
use crate::queue::hosted::{Ask, HostedError, Queues};
use crate::storage::Write;

/// The queues that requests go to.
#[async_trait]
pub trait Desks: Send + Sync + 'static {
    /// Leaves a request with a queue, in one write with `once`; it is durable when this returns. `by`: who asks, for people.
    /// `false`: a record of `once` is there, and so the request was left before.
    async fn ask(&self, order: &Order, by: &str, once: Vec<Write>) -> Result<bool, AskError>;
}

/// Why a queue does not take a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The queue would say the same again.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Unavailable(String),
}

#[async_trait]
impl Desks for Queues {
    async fn ask(&self, order: &Order, by: &str, once: Vec<Write>) -> Result<bool, AskError> {
        let ask = Ask { request: order.request.clone(), by: by.to_owned() };
        match self.ask_once(&order.queue, &ask, &once).await {
            Ok(left) => Ok(left.is_some()),
            // It says the same however often it is asked.
            Err(error @ (HostedError::Refused(_) | HostedError::NoChange(_))) => {
                Err(AskError::Refused(error.to_string()))
            }
            Err(error) => Err(AskError::Unavailable(chain(&error))),
        }
    }
}
