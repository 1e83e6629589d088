//! Writes what a change affects, for people and for programs.

use std::path::Path;
use std::time::Duration;

use kiln_ci::impact::{Affected, Cause, Everything, Impact, Snapshot};
use kiln_net::counts::counted;
use serde::Serialize;

use crate::cli::error::CliError;
use crate::cli::say::say;
use crate::cli::text;

/// Removed labels that are named to people.
const NAMED: usize = 5;

#[derive(Serialize)]
pub struct Report<'a> {
    /// Why everything counts as affected; `None`: `affected` says what is.
    #[serde(skip_serializing_if = "Option::is_none")]
    everything: Option<String>,
    affected: Vec<Target<'a>>,
    removed: &'a [String],
    base_from_cache: bool,
    seconds: f64,
    #[serde(skip)]
    known: usize,
}

#[derive(Serialize)]
pub struct Target<'a> {
    label: &'a str,
    /// The class of its rule; none of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    pub test: bool,
    /// Whether patterns like `//...` leave the target out.
    pub manual: bool,
    /// The number of steps from what changed itself; `None`: it is not known.
    distance: Option<u32>,
    cause: &'static str,
    /// The dependency, or the tag, that is the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    through: Option<&'a str>,
}

impl Target<'_> {
    pub fn is_rule(&self) -> bool {
        self.class.is_some()
    }

    /// Whether it belongs into a list of tests that are to run; `manual`: also where patterns would leave it out.
    pub fn is_run(&self, manual: bool) -> bool {
        self.test && (manual || !self.manual)
    }
}

/// Labels of other repositories are no concern of whoever builds this one.
fn is_own(label: &str) -> bool {
    !label.starts_with('@') || label.starts_with("@@//") || label.starts_with("@//")
}

fn target<'a>(affected: &'a Affected, head: &'a Snapshot) -> Target<'a> {
    let (cause, through) = match &affected.cause {
        Cause::Changed => ("changed", None),
        Cause::New => ("new", None),
        Cause::Dependency(label) => ("dependency", Some(label.as_str())),
        Cause::Tag(tag) => ("tag", Some(tag.as_str())),
        Cause::Everything => ("everything", None),
    };
    let known = head.targets.get(&affected.label);
    Target {
        label: &affected.label,
        class: known.and_then(|known| known.class.as_deref()),
        test: known.is_some_and(kiln_ci::impact::Target::is_test),
        manual: known.is_some_and(kiln_ci::impact::Target::is_manual),
        distance: affected.distance,
        cause,
        through,
    }
}

fn reason(everything: &Everything) -> String {
    match everything {
        Everything::Common(files) => {
            let differ = if files.len() == 1 { "differs" } else { "differ" };
            format!("{} {differ}, which every target depends on", files.join(", "))
        }
        Everything::NoBase(reason) => format!("the base cannot be compared with: {reason}"),
    }
}

impl<'a> Report<'a> {
    pub fn new(
        impact: &'a Impact,
        head: &'a Snapshot,
        base_from_cache: bool,
        took: Duration,
    ) -> Self {
        let own = impact.affected.iter().filter(|affected| is_own(&affected.label));
        let rules =
            head.targets.iter().filter(|(label, target)| target.class.is_some() && is_own(label));
        Self {
            everything: impact.everything.as_ref().map(reason),
            affected: own.map(|affected| target(affected, head)).collect(),
            removed: &impact.removed,
            base_from_cache,
            seconds: took.as_secs_f64(),
            known: rules.count(),
        }
    }

    pub fn labels(&self, wanted: impl Fn(&Target<'_>) -> bool) -> String {
        let wanted = self.affected.iter().filter(|target| wanted(target));
        wanted.map(|target| format!("{}\n", target.label)).collect()
    }

    /// Says which tests a list that does not name them leaves out.
    pub fn say_left_out(&self) {
        let left = self.affected.iter().filter(|target| target.test && target.manual).count();
        if left > 0 {
            say(&format!("{} tagged manual not listed (--manual)", counted(left, "test")));
        }
    }

    pub fn print_json(&self) -> Result<(), CliError> {
        let json = serde_json::to_string_pretty(self);
        let json =
            json.map_err(|error| CliError::machine(format!("cannot write JSON: {error}")))?;
        text::write_out(format!("{json}\n").as_bytes())
    }

    /// Prints labels to stdout, and the sums to stderr.
    pub fn print(&self, wanted: impl Fn(&Target<'_>) -> bool) -> Result<(), CliError> {
        text::print(&self.labels(wanted))?;
        if let Some(why) = &self.everything {
            say(&format!("everything is affected: {why}"));
        }
        let rules = self.affected.iter().filter(|target| target.is_rule()).count();
        let tests = self.affected.iter().filter(|target| target.test).count();
        let cache = if self.base_from_cache { "; the base was known" } else { "" };
        say(&format!(
            "{rules} of {} targets affected, {tests} of them tests; {:.1} s{cache}",
            self.known, self.seconds
        ));
        let removed: Vec<_> = self.removed.iter().filter(|label| is_own(label)).collect();
        if !removed.is_empty() {
            let named = removed.iter().take(NAMED).map(|label| label.as_str()).collect::<Vec<_>>();
            let more = if removed.len() > NAMED { ", …" } else { "" };
            say(&format!("{} removed: {}{more}", removed.len(), named.join(", ")));
        }
        Ok(())
    }
}

pub fn write(path: &Path, labels: &str) -> Result<(), CliError> {
    std::fs::write(path, labels)
        .map_err(|error| CliError::machine(format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use kiln_ci::impact::{Graph, Kind, Node, compare};

    use super::*;

    #[test]
    fn tests_that_only_people_run_are_named_where_somebody_asks_for_them() {
        let test = |label: &str, tags: &[&str]| Node {
            label: label.to_owned(),
            kind: Kind::Rule("sh_test".to_owned()),
            own: None,
            whole: None,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            deps: Vec::new(),
        };
        let nodes = vec![test("//a:by_hand", &["manual"]), test("//a:each", &["small"])];
        let head = Snapshot::new(&Graph { nodes }, BTreeMap::new(), &HashMap::new());
        let impact = compare(Err("it is new".to_owned()), &head, &[]);
        let report = Report::new(&impact, &head, false, Duration::ZERO);
        assert_eq!(report.labels(|target| target.is_run(false)), "//a:each\n");
        assert_eq!(report.labels(|target| target.is_run(true)), "//a:by_hand\n//a:each\n");
        assert_eq!(report.labels(|target| target.is_rule()), "//a:by_hand\n//a:each\n");
    }
}
