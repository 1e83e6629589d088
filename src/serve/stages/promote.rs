//! Promotions that wait for approvals and gates.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kiln_ci::pipelines::{Ended, Progress, Promotion, RunnerError, Task};
use kiln_ci::stages::Ledger;
use kiln_deploy::promotion::{
    Actor, Ask, Decision, Keeper, Outcome as Promoted, Placed, PromotionError,
};
use kiln_deploy::releases::ReleaseName;
use kiln_net::causes::chain;

use super::release::unavailable;

/// How often it is looked whether everything is met.
const LOOK: Duration = Duration::from_secs(3);
/// How long is waited after checks have failed, which are programs.
const CHECK_AGAIN: Duration = Duration::from_secs(60);
/// Characters of the list of obstacles that a stage shows.
const MAX_SAID: usize = 800;

/// The result of one look at a promotion: it has ended, or waits for a reason and is looked at
/// again after a time.
enum Look {
    Ended(Ended),
    Waits(String, Duration),
}

fn obstacles(decision: &Decision) -> String {
    let all: Vec<_> = decision.obstacles().map(|it| it.text.as_str()).collect();
    all.join("; ").chars().take(MAX_SAID).collect()
}

fn passed(environment: &str, placed: &Placed) -> Look {
    let told = [
        ("environment".to_owned(), environment.to_owned()),
        ("release".to_owned(), placed.release.to_string()),
        ("digest".to_owned(), placed.digest.to_string()),
    ];
    let links = vec![("environment".to_owned(), format!("/environments/{environment}"))];
    Look::Ended(Ended { links, ..Ended::passed(BTreeMap::from(told)) })
}

/// Promotes as soon as that may be. Nothing is left to wait when this ends: a promotion that somebody cancelled does not come
/// later by itself. Who began the run is an automaton here: he approves nothing by that.
pub async fn run(
    keeper: Option<&Arc<Keeper>>,
    ledger: &Ledger,
    task: &Task,
    promotion: &Promotion,
    progress: &dyn Progress,
) -> Result<Ended, RunnerError> {
    let Some(keeper) = keeper else {
        return Ok(Ended::failed("this server has no environments: promotion.policy names them"));
    };
    let release = match promotion.release.parse::<ReleaseName>() {
        Ok(release) => release,
        Err(error) => return Ok(Ended::failed(chain(&error))),
    };
    if keeper.pipeline().instance != task.instance {
        return Ok(Ended::failed("the environments of this server are those of another instance"));
    }
    let ask = Ask {
        environment: promotion.environment.clone(),
        release,
        by: Actor { name: task.by.clone(), automation: true },
        reason: promotion.reason.clone(),
        again: false,
        wait: None,
    };
    loop {
        if ledger.read(&task.key).await?.cancelled {
            return Ok(Ended::cancelled());
        }
        match look(keeper, &ask).await {
            Ok(Look::Ended(ended)) => return Ok(ended),
            Ok(Look::Waits(why, pause)) => {
                progress.standing(&format!("waits: {why}"));
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = ledger.cancelled(&task.key) => {}
                }
            }
            Err(error @ (PromotionError::NoRelease(_) | PromotionError::Refused(_))) => {
                return Ok(Ended::failed(chain(&error)));
            }
            Err(error) => return Err(unavailable("the promotion of releases", error)),
        }
    }
}

/// Checks are run when nothing else is in the way.
async fn look(keeper: &Keeper, ask: &Ask) -> Result<Look, PromotionError> {
    let decision = match Box::pin(keeper.judge(ask)).await? {
        Promoted::Already { placed } | Promoted::Promoted { placed, .. } => {
            return Ok(passed(&ask.environment, &placed));
        }
        Promoted::Refused { decision } => {
            return Ok(Look::Ended(Ended::failed(obstacles(&decision))));
        }
        Promoted::NotNow { decision } | Promoted::Waits { decision, .. } => decision,
    };
    if !decision.is_met_but_for_checks() {
        return Ok(Look::Waits(obstacles(&decision), LOOK));
    }
    Ok(match Box::pin(keeper.promote(ask)).await? {
        Promoted::Already { placed } | Promoted::Promoted { placed, .. } => {
            passed(&ask.environment, &placed)
        }
        Promoted::Refused { decision } => Look::Ended(Ended::failed(obstacles(&decision))),
        Promoted::NotNow { decision } | Promoted::Waits { decision, .. } => {
            Look::Waits(obstacles(&decision), CHECK_AGAIN)
        }
    })
}
