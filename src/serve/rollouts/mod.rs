//! Rollouts of a server: what they may name, what goes on by itself, and who is told.

mod options;
mod told;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kiln_deploy::rollouts::control::{Control, RolloutFigures};
use kiln_net::Backoff;
use kiln_net::causes::chain;
use kiln_net::panics::resumed;

pub use self::options::{RolloutOptions, read_parts};
use self::told::tell;
use super::webhook::{Webhook, WebhookError, heard};

/// How often it is looked whether something is to be told.
const LOOK: Duration = Duration::from_secs(5);
/// Notices that are told one after the other in one look.
const TOLD_AT_ONCE: usize = 50;
/// How often one notice is told at most, and how long is waited after it could not be.
const TRIES: u32 = 10;
const PAUSES: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(300));

/// Rollouts, and what goes on in them by itself.
pub struct Rollouts {
    pub control: Arc<Control>,
    pub webhook: Option<Webhook>,
}

/// The webhook that is told of rollouts; `None`: nobody is told.
pub fn teller(options: &RolloutOptions, base_url: &str) -> Result<Option<Webhook>, WebhookError> {
    options.webhook.as_ref().map(|it| Webhook::new(it, base_url)).transpose()
}

/// Returns counts of what became of rollouts, all zero until `control` is set.
pub fn figures(
    control: Arc<OnceLock<Arc<Control>>>,
) -> Arc<dyn Fn() -> RolloutFigures + Send + Sync> {
    Arc::new(move || control.get().map(|it| it.figures()).unwrap_or_default())
}

impl Rollouts {
    /// Drives rollouts and tells notices of them. Never returns; drop it to end it. Nobody who is
    /// told holds up what is rolled out.
    pub async fn run(self) {
        let Self { control, webhook } = self;
        let telling = async {
            if let Some(webhook) = &webhook {
                resumed("telling of rollouts", || keep_told(&control, webhook)).await;
            }
        };
        let driving = resumed("driving rollouts", || control.clone().run());
        let counting = resumed("counting targets", || control.keep_counted());
        let drilling = resumed("beginning drills", || control.keep_drilled());
        tokio::join!(driving, counting, drilling, telling);
    }
}

/// Tells the webhook all notices, again and again; never returns.
async fn keep_told(control: &Control, webhook: &Webhook) {
    let mut tries = 0;
    loop {
        let pause = tell_all(control, webhook, &mut tries).await;
        tokio::time::sleep(pause).await;
    }
}

/// Tells notices, each until it was heard or given up; says how long to wait for the next look.
async fn tell_all(control: &Control, webhook: &Webhook, tries: &mut u32) -> Duration {
    let notices = match control.notices(TOLD_AT_ONCE).await {
        Ok(notices) => notices,
        Err(error) => {
            tracing::warn!(error = %chain(&error), "it is not known what is to be told of rollouts");
            return LOOK;
        }
    };
    for notice in notices {
        match control.leads().await {
            Ok(true) => {}
            // Whoever has the lease tells it: once, however many frontends there are.
            Ok(false) => return LOOK,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "it is not known who tells of rollouts");
                return LOOK;
            }
        }
        if let Err(reason) = heard(tell(webhook, &notice)).await {
            *tries += 1;
            if *tries < TRIES {
                tracing::info!(
                    reason,
                    rollout = notice.rollout,
                    "a rollout's news could not be told"
                );
                return PAUSES.pause(*tries);
            }
            tracing::warn!(reason, rollout = notice.rollout, "a rollout's news is told to nobody");
        }
        *tries = 0;
        if let Err(error) = control.told(&notice).await {
            tracing::warn!(error = %chain(&error), "a rollout's news may be told twice");
            return LOOK;
        }
    }
    LOOK
}
