//! The task that hears of finished executions for metrics and traces.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_cas::events::Events;
use kiln_net::panics::spawn_heard;
use kiln_protos::events::Execution;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::stages::Stages;
use super::traces::{SILENCE, Traces};

/// How long further events are left to gather after a first one: thousands of cache hits a second
/// then cost twenty wake-ups. Far fewer gather than [`kiln_cas::events::EVENT_BUFFER`].
const GATHER: Duration = Duration::from_millis(50);

/// Handle on the task.
pub struct Observer {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

struct Observing {
    events: Receiver<Arc<Execution>>,
    stages: Arc<Stages>,
    traces: Option<Traces>,
}

impl Observer {
    /// Subscribes to `events`. Call within a tokio runtime.
    pub fn start(events: &Events, stages: Arc<Stages>, traces: Option<Traces>) -> Self {
        let stop = CancellationToken::new();
        let observing = Observing { events: events.subscribe(), stages, traces };
        Self {
            task: spawn_heard("metrics and traces of actions", observing.run(stop.clone())),
            stop,
        }
    }

    /// Takes in what was published before, and sends the traces that are left.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task for metrics and traces failed");
        }
    }
}

impl Observing {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let open = self.traces.as_ref().is_some_and(Traces::has_builds);
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(SILENCE), if open => {}
                event = self.events.recv() => match event {
                    Ok(execution) => self.note(&execution),
                    Err(RecvError::Lagged(lost)) => self.stages.lose(lost),
                    Err(RecvError::Closed) => break,
                },
            }
            self.take_in();
            if let Some(traces) = &mut self.traces {
                traces.end_silent(Instant::now());
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(GATHER) => {}
            }
        }
        self.take_in();
        if let Some(traces) = self.traces {
            traces.shutdown().await;
        }
    }

    /// All that has been published.
    fn take_in(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(execution) => self.note(&execution),
                Err(TryRecvError::Lagged(lost)) => self.stages.lose(lost),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn note(&mut self, execution: &Execution) {
        self.stages.note(execution);
        if let Some(traces) = &mut self.traces {
            traces.note(execution, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_protos::events::execution::Origin;

    use super::super::stages::Outcome;
    use super::*;

    #[tokio::test]
    async fn what_was_published_before_the_end_is_counted() {
        let (events, stages) = (Events::new(), Arc::new(Stages::default()));
        let observer = Observer::start(&events, stages.clone(), None);
        for _ in 0..1000 {
            events.publish(Execution { origin: Origin::Executed.into(), ..Execution::default() });
        }
        observer.shutdown().await;
        assert_eq!(stages.outcome(Outcome::Success), 1000);
        assert_eq!(stages.lost(), 0);
    }
}
