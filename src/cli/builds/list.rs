//! `kiln build list`.

use super::summary::{elapsed, failures, state, tool};
use crate::cli::text::Table;
use kiln_web::format::{ago, count, duration, now};
use kiln_web::json::Builds;

pub fn list(builds: &Builds) -> String {
    if builds.builds.is_empty() {
        return "no builds yet\n".to_owned();
    }
    let head = ["build", "began", "took", "executed", "cached", "failed", "now", "tool"];
    let mut table = Table::new(&head, &[2, 3, 4, 5]);
    let now = now();
    for build in &builds.builds {
        table.row([
            build.invocation_id.clone(),
            ago(build.first_at, now),
            duration(elapsed(build, now)),
            count(build.counts.executed),
            count(build.counts.cache_hits),
            failures(build.counts.failed),
            state(build),
            tool(&build.tool_name, &build.tool_version),
        ]);
    }
    table.text("")
}
