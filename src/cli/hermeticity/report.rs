//! Writes the findings of hermeticity checks for people.

use std::collections::BTreeMap;

use kiln_web::format::counted;
use kiln_web::json::{Checked, Difference};

pub fn report(checks: &[Checked]) -> String {
    let mut text = String::new();
    for checked in checks.iter().filter(|one| one.verdict != "same") {
        text.push_str(&one(checked));
    }
    let mut reasons: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for not_changed in checks.iter().flat_map(|checked| &checked.not_changed) {
        *reasons.entry((&not_changed.condition, &not_changed.reason)).or_default() += 1;
    }
    for ((condition, reason), times) in reasons {
        let actions = counted(times as u64, "action");
        text.push_str(&format!("not changed for {actions}: {condition}: {reason}\n"));
    }
    let same_worker = checks
        .iter()
        .filter(|one| !one.worker.is_empty() && one.worker == one.first_worker)
        .count();
    if same_worker > 0 {
        let actions = counted(same_worker as u64, "action");
        text.push_str(&format!("{actions} ran again on the same worker as at first\n"));
    }
    let streams = checks.iter().filter(|one| one.stdout_differs || one.stderr_differs).count();
    if streams > 0 {
        let actions = counted(streams as u64, "action");
        text.push_str(&format!("{actions} printed something else\n"));
    }
    let of = |verdict: &str| checks.iter().filter(|one| one.verdict == verdict).count();
    text.push_str(&format!(
        "{} checked: {} the same, {} not hermetic, {} not deterministic, {} could not be run again\n",
        checks.len(),
        of("same"),
        of("not_hermetic"),
        of("not_deterministic"),
        of("not_checked"),
    ));
    text
}

fn one(checked: &Checked) -> String {
    let name = |name: &str| if name.is_empty() { "(none)".to_owned() } else { name.to_owned() };
    let mut text = format!("{} {}\n", name(&checked.target), name(&checked.mnemonic));
    if let Some(action) = &checked.action {
        text.push_str(&format!("  action {}/{}\n", action.hash, action.size_bytes));
    }
    text.push_str(&format!("  {}\n", checked.summary()));
    for difference in &checked.differences {
        text.push_str(&told(difference));
    }
    if checked.more_differences > 0 {
        text.push_str(&format!("  and {} more\n", checked.more_differences));
    }
    text
}

fn told(difference: &Difference) -> String {
    let what = match difference.kind.as_str() {
        "exit_code" => "exit code".to_owned(),
        "content" => difference.path.clone(),
        kind => format!("{} ({kind})", difference.path),
    };
    let mut text = format!("  {what}");
    if let Some(offset) = difference.offset {
        text.push_str(&format!(": byte {offset}"));
    }
    if let Some(line) = difference.line {
        text.push_str(&format!(", line {line}"));
    }
    text.push('\n');
    for (which, digest, excerpt) in [
        ("first", &difference.first, &difference.first_text),
        ("again", &difference.again, &difference.again_text),
    ] {
        let digest =
            digest.as_ref().map_or(String::new(), |it| format!("{}/{} ", it.hash, it.size_bytes));
        if !digest.is_empty() || !excerpt.is_empty() {
            text.push_str(&format!("    {which} {digest}{excerpt}\n"));
        }
    }
    for hint in &difference.hints {
        text.push_str(&format!("    {hint}\n"));
    }
    text
}
