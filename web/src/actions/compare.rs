//! Why an action missed the cache: what differs from an earlier one, in words.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use kiln_cas::counted::Counted;
use kiln_cas::{Digest, DigestFunction, StoreError};
use kiln_protos::reapi::{Action, Command, Directory, Platform};
use similar::TextDiff;

use crate::content::{MAX_MESSAGE, digest};
use crate::state::WebState;

/// Differences that are listed.
pub const MAX_DIFFERENCES: usize = 60;
/// Directories that are read on either side.
const MAX_DIRECTORIES: usize = 400;
/// Changed files of which the lines are shown.
const MAX_TEXTS: usize = 8;
/// Bytes of the largest file of which the lines are compared.
const MAX_COMPARED: u64 = 256 << 10;
/// Lines that are shown of each changed file.
const MAX_LINES: usize = 200;
/// The time after which two texts are compared no further: what is left is shown as gone and come.
const COMPARED_WITHIN: Duration = Duration::from_millis(200);

/// Something that differs between two actions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What kind of thing, e.g. `input` or `environment variable`.
    pub kind: &'static str,
    pub name: String,
    /// `None`: it was not there.
    pub before: Option<String>,
    /// `None`: it is not there any more.
    pub after: Option<String>,
    /// The digests of a changed file before and after; `None`: it is no file that is in both.
    pub contents: Option<(Digest, Digest)>,
    /// The lines that differ in a changed text file, as `diff -u` shows them; `None` for all else.
    pub text: Option<String>,
}

impl Difference {
    /// `changed`, `added` or `removed`.
    pub fn change(&self) -> &'static str {
        match (&self.before, &self.after) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        }
    }
}

#[derive(Debug, Default)]
pub struct Comparison {
    pub differences: Vec<Difference>,
    /// Whether there are more differences than are listed, or more inputs than were read.
    pub is_cut: bool,
}

impl Comparison {
    fn add(
        &mut self,
        kind: &'static str,
        name: impl Into<String>,
        before: Option<String>,
        after: Option<String>,
    ) {
        if before == after {
            return;
        }
        if self.differences.len() >= MAX_DIFFERENCES {
            self.is_cut = true;
            return;
        }
        let (contents, text, name) = (None, None, name.into());
        self.differences.push(Difference { kind, name, before, after, contents, text });
    }

    /// Names the contents of what was added last, if it was that file.
    fn name_contents(&mut self, name: &str, before: Option<Digest>, after: Option<Digest>) {
        let last = self.differences.last_mut();
        if let Some(last) = last.filter(|last| last.kind == "input" && last.name == name) {
            last.contents = before.zip(after);
        }
    }

    fn add_maps(
        &mut self,
        kind: &'static str,
        before: &BTreeMap<String, String>,
        after: &BTreeMap<String, String>,
    ) {
        for (name, value) in before {
            self.add(kind, name, Some(value.clone()), after.get(name).cloned());
        }
        for (name, value) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
            self.add(kind, name, None, Some(value.clone()));
        }
    }
}

/// Compares two actions by what the store has of them. Errors: a message that both sides need
/// is gone.
pub async fn compare(
    state: &WebState,
    before: &Digest,
    after: &Digest,
) -> Result<Comparison, StoreError> {
    let mut comparison = Comparison::default();
    let old: Action = state.message(before, MAX_MESSAGE).await?;
    let new: Action = state.message(after, MAX_MESSAGE).await?;
    if old.command_digest != new.command_digest {
        compare_commands(
            &child(state, old.command_digest.as_ref(), before).await?,
            &child(state, new.command_digest.as_ref(), after).await?,
            &mut comparison,
        );
    }
    compare_settings(&old, &new, &mut comparison);
    let roots = (
        digest(old.input_root_digest.as_ref(), before.function),
        digest(new.input_root_digest.as_ref(), after.function),
    );
    if let (Some(old), Some(new)) = roots {
        compare_inputs(state, old, new, &mut comparison).await?;
    }
    Ok(comparison)
}

async fn child<M: Counted + 'static>(
    state: &WebState,
    wire: Option<&kiln_protos::reapi::Digest>,
    parent: &Digest,
) -> Result<M, StoreError> {
    let digest = digest(wire, parent.function)
        .ok_or_else(|| StoreError::invalid(format!("action {parent} names no proper digest")))?;
    state.message(&digest, MAX_MESSAGE).await
}

fn compare_settings(old: &Action, new: &Action, comparison: &mut Comparison) {
    let timeout = |action: &Action| action.timeout.map(|timeout| format!("{} s", timeout.seconds));
    let hex = |salt: &[u8]| salt.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let salt = |action: &Action| (!action.salt.is_empty()).then(|| hex(&action.salt));
    let cached = |action: &Action| Some((!action.do_not_cache).to_string());
    comparison.add("setting", "timeout", timeout(old), timeout(new));
    comparison.add("setting", "salt", salt(old), salt(new));
    comparison.add("setting", "may be cached", cached(old), cached(new));
    comparison.add_maps(
        "platform property",
        &properties(old.platform.as_ref()),
        &properties(new.platform.as_ref()),
    );
}

fn properties(platform: Option<&Platform>) -> BTreeMap<String, String> {
    let all = platform.map_or(&[][..], |platform| &platform.properties);
    all.iter().map(|property| (property.name.clone(), property.value.clone())).collect()
}

#[allow(deprecated)]
fn compare_commands(old: &Command, new: &Command, comparison: &mut Comparison) {
    compare_lists("argument", &old.arguments, &new.arguments, comparison);
    let variables = |command: &Command| {
        let all = command.environment_variables.iter();
        all.map(|variable| (variable.name.clone(), variable.value.clone())).collect()
    };
    comparison.add_maps("environment variable", &variables(old), &variables(new));
    let outputs = |command: &Command| {
        [&command.output_paths[..], &command.output_files, &command.output_directories].concat()
    };
    compare_lists("declared output", &outputs(old), &outputs(new), comparison);
    let directory = |command: &Command| {
        (!command.working_directory.is_empty()).then(|| command.working_directory.clone())
    };
    comparison.add("setting", "working directory", directory(old), directory(new));
    comparison.add_maps(
        "platform property",
        &properties(old.platform.as_ref()),
        &properties(new.platform.as_ref()),
    );
}

/// What one list has more often than the other; failing that, that the order differs.
fn compare_lists(kind: &'static str, old: &[String], new: &[String], comparison: &mut Comparison) {
    let mut balance: HashMap<&str, i64> = HashMap::new();
    old.iter().for_each(|item| *balance.entry(item).or_default() -= 1);
    new.iter().for_each(|item| *balance.entry(item).or_default() += 1);
    let mut is_same_set = true;
    let mut take = |item: &String, sign: i64| {
        let left = balance.get_mut(item.as_str()).filter(|left| left.signum() == sign);
        left.is_some_and(|left| {
            *left -= sign;
            true
        })
    };
    for item in old {
        if take(item, -1) {
            is_same_set = false;
            comparison.add(kind, "", Some(item.clone()), None);
        }
    }
    for item in new {
        if take(item, 1) {
            is_same_set = false;
            comparison.add(kind, "", None, Some(item.clone()));
        }
    }
    if is_same_set && old != new {
        comparison.add(kind, "order", Some("as before".into()), Some("changed".into()));
    }
}

/// Reads only directories whose digests differ.
async fn compare_inputs(
    state: &WebState,
    old: Digest,
    new: Digest,
    comparison: &mut Comparison,
) -> Result<(), StoreError> {
    let mut waiting = vec![(String::new(), old, new)];
    let mut read = 0;
    while let Some((path, old, new)) = waiting.pop() {
        if old == new {
            continue;
        }
        if read >= MAX_DIRECTORIES || comparison.is_cut {
            comparison.is_cut = true;
            return Ok(());
        }
        read += 1;
        let before: Directory = state.message(&old, MAX_MESSAGE).await?;
        let after: Directory = state.message(&new, MAX_MESSAGE).await?;
        compare_files(&path, (&before, old.function), (&after, new.function), comparison);
        let earlier: HashMap<&str, Option<Digest>> = before
            .directories
            .iter()
            .map(|child| (child.name.as_str(), digest(child.digest.as_ref(), old.function)))
            .collect();
        for child in &after.directories {
            let name = format!("{path}{}/", child.name);
            let new = digest(child.digest.as_ref(), new.function);
            match (earlier.get(child.name.as_str()), new) {
                (Some(Some(old)), Some(new)) => waiting.push((name, *old, new)),
                (None, _) => comparison.add("input", name, None, Some("directory".into())),
                _ => {}
            }
        }
        let kept: HashSet<&str> = after.directories.iter().map(|kept| kept.name.as_str()).collect();
        for child in &before.directories {
            if !kept.contains(child.name.as_str()) {
                let name = format!("{path}{}/", child.name);
                comparison.add("input", name, Some("directory".into()), None);
            }
        }
    }
    Ok(())
}

fn compare_files(
    path: &str,
    (before, old): (&Directory, DigestFunction),
    (after, new): (&Directory, DigestFunction),
    comparison: &mut Comparison,
) {
    let (earlier, later) = (contents(path, before), contents(path, after));
    let digest_in = |directory: &Directory, function, name: &str| {
        let name = name.strip_prefix(path)?;
        let file = directory.files.iter().find(|file| file.name == name)?;
        digest(file.digest.as_ref(), function)
    };
    for (name, value) in &earlier {
        let now = later.get(name);
        comparison.add("input", name, Some(value.clone()), now.cloned());
        if now.is_some_and(|now| now != value) {
            let digests = (digest_in(before, old, name), digest_in(after, new, name));
            comparison.name_contents(name, digests.0, digests.1);
        }
    }
    for (name, value) in later.iter().filter(|(name, _)| !earlier.contains_key(*name)) {
        comparison.add("input", name, None, Some(value.clone()));
    }
}

/// Shows the lines that differ of the first changed text files.
pub async fn add_texts(state: &WebState, comparison: &mut Comparison) {
    let changed = comparison.differences.iter_mut().filter(|found| found.contents.is_some());
    for difference in changed.take(MAX_TEXTS) {
        let Some((before, after)) = difference.contents else { continue };
        let before = state.whole_text(&before, MAX_COMPARED).await;
        let after = state.whole_text(&after, MAX_COMPARED).await;
        difference.text = before.zip(after).map(|(before, after)| lines(&before, &after));
    }
}

/// The lines that differ between two texts as `diff -u` shows them, without its header, at most [`MAX_LINES`].
fn lines(before: &str, after: &str) -> String {
    let diff = TextDiff::configure().timeout(COMPARED_WITHIN).diff_lines(before, after);
    let text = diff.unified_diff().context_radius(2).missing_newline_hint(false).to_string();
    let mut shown: String = text.lines().take(MAX_LINES).map(|line| format!("{line}\n")).collect();
    if text.lines().count() > MAX_LINES {
        shown.push_str("...\n");
    }
    shown
}

/// Files and links by path, with what tells two of the same name apart.
fn contents(path: &str, directory: &Directory) -> BTreeMap<String, String> {
    let file = |file: &kiln_protos::reapi::FileNode| {
        let digest = file.digest.clone().unwrap_or_default();
        let hash: String = digest.hash.chars().take(12).collect();
        let mode = if file.is_executable { ", executable" } else { "" };
        (format!("{path}{}", file.name), format!("{hash}, {} bytes{mode}", digest.size_bytes))
    };
    let link = |link: &kiln_protos::reapi::SymlinkNode| {
        (format!("{path}{}", link.name), format!("link to {}", link.target))
    };
    directory.files.iter().map(file).chain(directory.symlinks.iter().map(link)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(old: &[&str], new: &[&str]) -> Vec<(Option<String>, Option<String>)> {
        let owned = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        let mut comparison = Comparison::default();
        compare_lists("argument", &owned(old), &owned(new), &mut comparison);
        comparison.differences.into_iter().map(|d| (d.before, d.after)).collect()
    }

    #[test]
    fn lists_differ_by_what_came_and_went_or_by_order() {
        assert_eq!(lists(&["a", "b"], &["a", "b"]), []);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(lists(&["a", "-O2"], &["a", "-O1"]), [(some("-O2"), None), (None, some("-O1"))]);
        assert_eq!(lists(&["a", "a"], &["a"]), [(some("a"), None)]);
        assert_eq!(lists(&["a", "b"], &["b", "a"]), [(some("as before"), some("changed"))]);
    }

    #[test]
    fn the_lines_of_a_text_that_differ_are_shown() {
        let (before, after) = ("a\nb\nc\nd\ne\nf\n", "a\nb\nc\nD\ne\nf\n");
        assert_eq!(lines(before, after), "@@ -2,5 +2,5 @@\n b\n c\n-d\n+D\n e\n f\n");
        let many: String = (0..1000).map(|number| format!("{number}\n")).collect();
        let shown = lines(&many, "");
        assert_eq!(shown.lines().count(), MAX_LINES + 1);
    }

    #[test]
    fn the_list_of_differences_is_bounded() {
        let mut comparison = Comparison::default();
        let map = |value: &str| {
            (0..1000).map(|i| (format!("V{i}"), value.to_owned())).collect::<BTreeMap<_, _>>()
        };
        comparison.add_maps("environment variable", &map("a"), &map("b"));
        assert_eq!((comparison.differences.len(), comparison.is_cut), (MAX_DIFFERENCES, true));
    }
}
