//! Releases in environments: `kiln promote`, `kiln rollback`, `kiln approve`, `kiln freeze` and `kiln env`.

mod approve;
mod environments;
mod freeze;
mod promote;
mod rollback;

pub use approve::ApproveCommand;
pub use environments::EnvironmentCommand;
pub use freeze::FreezeCommand;
pub use promote::PromoteCommand;
pub use rollback::RollbackCommand;

use kiln_web::json::PromotionChange;

fn changed(it: &PromotionChange) -> String {
    let subject = if it.subject.is_empty() { String::new() } else { format!(" of {}", it.subject) };
    format!(
        "noted as {} (change {}): {}{subject} by {}\n",
        it.action, it.number, it.environment, it.by
    )
}
