//! Asks the queues of a server.

use async_trait::async_trait;
use kiln_net::causes::chain;

use super::decide::Order;
use super::intake::{AskError, Desks};
use crate::queue::hosted::{Ask, HostedError, Queues};

#[async_trait]
impl Desks for Queues {
    async fn ask(&self, order: &Order, by: &str) -> Result<(), AskError> {
        let ask = Ask { request: order.request.clone(), by: by.to_owned() };
        match Queues::ask(self, &order.queue, &ask).await {
            Ok(_) => Ok(()),
            // It says the same however often it is asked.
            Err(error @ (HostedError::Refused(_) | HostedError::NoChange(_))) => {
                Err(AskError::Refused(error.to_string()))
            }
            Err(error) => Err(AskError::Unavailable(chain(&error))),
        }
    }
}
