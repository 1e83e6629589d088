//! Rollouts of a server: what they may name, what goes on by itself, and who is told.

mod options;
mod told;

use std::sync::{Arc, OnceLock};

use kiln_cas::records::SharedRecords;
use kiln_deploy::rollouts::control::{Control, RolloutFigures};
use kiln_net::panics::resumed;

pub use self::options::{RolloutOptions, read_parts};
use self::told::{PACE, RolloutNews};
use super::telling::Telling;
use super::webhook::{Webhook, WebhookError};

/// Rollouts, and what goes on in them by itself.
pub struct Rollouts {
    control: Arc<Control>,
    /// `None`: nobody is told.
    telling: Option<Telling<RolloutNews>>,
}

/// The webhook that is told of rollouts; `None`: nobody is told.
pub fn teller(options: &RolloutOptions, base_url: &str) -> Result<Option<Webhook>, WebhookError> {
    Webhook::named(options.webhook.as_ref(), base_url)
}

/// Returns counts of what became of rollouts, all zero until `control` is set.
pub fn figures(
    control: Arc<OnceLock<Arc<Control>>>,
) -> Arc<dyn Fn() -> RolloutFigures + Send + Sync> {
    Arc::new(move || control.get().map(|it| it.figures()).unwrap_or_default())
}

impl Rollouts {
    /// `name` is what this server calls itself among all others, now and before.
    pub fn new(
        control: Arc<Control>,
        webhook: Option<Webhook>,
        (records, name): (&SharedRecords, &str),
    ) -> Self {
        let telling = webhook.map(|webhook| {
            let news = RolloutNews { control: control.clone(), webhook };
            Telling::new(news, PACE, (records, name))
        });
        Self { control, telling }
    }

    /// Drives rollouts and tells notices of them. Never returns; drop it to end it. Nobody who is
    /// told holds up what is rolled out.
    pub async fn run(self) {
        let Self { control, telling } = self;
        let tells = async {
            if let Some(telling) = &telling {
                resumed("telling of rollouts", || telling.keep_told()).await;
            }
        };
        let driving = resumed("driving rollouts", || control.clone().run());
        let counting = resumed("counting targets", || control.keep_counted());
        let drilling = resumed("beginning drills", || control.keep_drilled());
        tokio::join!(driving, counting, drilling, tells);
    }
}
