//! `kiln build diff`.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueHint};

use super::show::last;
use crate::cli::api::{self, Api};
use crate::cli::digest::invocation;
use crate::cli::error::CliError;
use crate::cli::text::{Look, Table, look, one_line};
use kiln_web::format::{count, counted, duration, encode, short};
use kiln_web::json::{
    BuildSide, ChangedOption, ChangedText, ChangedTime, Comparison, MissedAction,
};

/// Characters of one value that are printed.
const MAX_VALUE: usize = 120;
/// Differences that are listed of one action.
const MAX_DIFFERENCES: usize = 3;
/// Outcomes that stand out.
const GOOD: [&str; 5] = ["passed", "built", "skipped", "pending", "no_status"];

#[derive(Debug, Args)]
pub struct Diff {
    /// The earlier build: its invocation id, the beginning of it or the address of its page; `last`: the newest one
    #[arg(value_hint = ValueHint::Other, value_parser = NonEmptyStringValueParser::new())]
    before: String,
    /// The later build
    #[arg(value_hint = ValueHint::Other, value_parser = NonEmptyStringValueParser::new())]
    after: String,
    /// Actions to list
    #[arg(long, default_value_t = 20, value_name = "N")]
    actions: usize,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Diff {
    pub async fn run(self, api: &Api) -> Result<(), CliError> {
        let before = id(api, &self.before).await?;
        let after = id(api, &self.after).await?;
        let path = format!(
            "/builds/compare?before={}&after={}",
            encode(&before, false),
            encode(&after, false)
        );
        let answer = api.get(&path).await?;
        api::print(answer, self.json, |found: &Comparison| text(found, self.actions))
    }
}

async fn id(api: &Api, name: &str) -> Result<String, CliError> {
    match name {
        "last" => last(api).await,
        named => Ok(invocation(named)),
    }
}

fn text(found: &Comparison, actions: usize) -> String {
    let mut text = sides(found);
    if !found.is_told {
        text += "  flags, targets and tests are known of builds with build events alone\n";
    }
    text += &list("what differs", found.facts.iter().map(changed));
    text += &list("flags", found.options.iter().map(option));
    text += &list("targets and tests with another outcome", found.outcomes.iter().map(outcome));
    text += &list("tests that took another time", found.durations.iter().map(time));
    if found.left_out > 0 {
        text += &format!("    and {} more\n", count(found.left_out));
    }
    text + &missed(found, actions)
}

fn sides(found: &Comparison) -> String {
    let mut table = Table::new(&["", "build", "outcome", "took", "executed", "cached"], &[3, 4, 5]);
    for (name, side) in [("before", &found.before), ("after", &found.after)] {
        let counts = side.counts.as_ref();
        table.row([
            name.to_owned(),
            short(&side.invocation_id, 36),
            ended(side),
            side.took_ms.map_or_else(String::new, millis),
            counts.map_or_else(String::new, |it| count(it.executed)),
            counts.map_or_else(String::new, |it| count(it.cache_hits)),
        ]);
    }
    table.text("")
}

fn ended(side: &BuildSide) -> String {
    let Some(told) = &side.told else { return String::new() };
    match (told.exit_code, &told.exit_name) {
        (Some(0), _) => "succeeded".to_owned(),
        (Some(code), Some(name)) => look(Look::Bad, &format!("{} ({code})", short(name, 40))),
        (Some(code), None) => look(Look::Bad, &format!("exit code {code}")),
        (None, _) => "open".to_owned(),
    }
}

/// A title with a list of indented lines; empty where the list is.
fn list(title: &str, lines: impl Iterator<Item = String>) -> String {
    let lines: String = lines.map(|line| format!("    {}\n", one_line(&line))).collect();
    match lines.is_empty() {
        true => lines,
        false => format!("  {}\n{lines}", look(Look::Bold, title)),
    }
}

fn millis(millis: u64) -> String {
    duration(millis.saturating_mul(1_000_000))
}

fn value(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), |it| short(it, MAX_VALUE))
}

fn changed(it: &ChangedText) -> String {
    format!("{}: {} -> {}", it.name, value(it.before.as_deref()), value(it.after.as_deref()))
}

fn option(it: &ChangedOption) -> String {
    let values = |all: &[String]| match all {
        [] => "-".to_owned(),
        [only] if only.is_empty() => "given".to_owned(),
        all => short(&all.join(" "), MAX_VALUE),
    };
    format!("{}: {} -> {}", short(&it.name, MAX_VALUE), values(&it.before), values(&it.after))
}

fn outcome(it: &ChangedText) -> String {
    let word = |word: &Option<String>| match word.as_deref() {
        Some(word) if !GOOD.contains(&word) => look(Look::Bad, &short(word, 40)),
        word => value(word),
    };
    format!("{}: {} -> {}", short(&it.name, MAX_VALUE), word(&it.before), word(&it.after))
}

fn time(it: &ChangedTime) -> String {
    let (before, after) = (millis(it.before_ms), millis(it.after_ms));
    format!("{}: {before} -> {after}", short(&it.name, MAX_VALUE))
}

fn missed(found: &Comparison, most: usize) -> String {
    if found.executed == 0 {
        return "  the later build ran nothing here\n".to_owned();
    }
    let mut text = format!(
        "  {}\n    {} ran, {} of them known to the earlier build; {} compared\n",
        look(Look::Bold, "not cached"),
        counted(found.executed, "action"),
        count(found.known_before),
        count(found.compared),
    );
    for it in &found.causes {
        let name = one_line(&short(&it.name, MAX_VALUE));
        let actions = counted(it.actions, "action");
        text += &format!("    {} {} {name}  {}\n", it.kind, it.change, look(Look::Dim, &actions));
    }
    for it in found.actions.iter().take(most) {
        text += &action(it);
    }
    let listed = found.actions.len().min(most) as u64;
    if found.executed > listed {
        text += &format!("    and {} more (--actions, --json)\n", count(found.executed - listed));
    }
    text
}

fn action(it: &MissedAction) -> String {
    let target = if it.target_id.is_empty() { "(no target named)" } else { &it.target_id };
    let what = one_line(&format!("{} {}", short(target, MAX_VALUE), it.mnemonic));
    let mut text = format!("    {what}  {}\n", look(Look::Dim, &duration(it.run_ns)));
    for reason in &it.reasons {
        text += &format!("      {}\n", one_line(&short(reason, 200)));
    }
    if !it.because.is_empty() {
        let others = counted(it.because.len() as u64, "other action");
        text += &format!("      reads what {others} made anew\n");
    }
    for one in it.differences.iter().take(MAX_DIFFERENCES) {
        let name = match one.name.as_str() {
            "" => value(one.after.as_deref().or(one.before.as_deref())),
            name => short(name, MAX_VALUE),
        };
        text += &format!("      {} {} {}\n", one.kind, one.change, one_line(&name));
    }
    let more = it.differences.len().saturating_sub(MAX_DIFFERENCES);
    if more > 0 {
        let named = format!("{}/{}", it.action.hash, it.action.size_bytes);
        text += &format!("      and {more} more: kiln action diff {named}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_without_a_value_is_told_from_one_that_is_not_there() {
        let texts = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect();
        let it = |before: &[&str], after: &[&str]| {
            option(&ChangedOption {
                name: "--x".to_owned(),
                before: texts(before),
                after: texts(after),
            })
        };
        assert_eq!(it(&[], &[""]), "--x: - -> given");
        assert_eq!(it(&["a", "b"], &["b"]), "--x: a b -> b");
    }

    #[test]
    fn a_list_of_nothing_has_no_title() {
        assert_eq!(list("flags", std::iter::empty()), "");
    }

    #[test]
    fn what_others_named_stays_on_its_line() {
        let forged = |name: &str| ChangedTime { name: name.to_owned(), before_ms: 1, after_ms: 2 };
        let text = list("times", [forged("//a\n  //b: failed\r")].iter().map(time));
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("//a   //b: failed "), "{text}");
    }
}
