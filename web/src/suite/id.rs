//! Names of tests in addresses. Labels may hold anything and be long: an address has a hash of them.

use kiln_ci::history::Tested;
use kiln_ci::model::{TestKey, Time};
use serde::Deserialize;

use crate::error::WebError;
use crate::state::WebState;

/// Hexadecimal digits of an id: 96 bits.
const DIGITS: usize = 24;
/// In how many days a test is looked for first, and then in all there are.
const RECENT: u64 = 14;
/// Tests of one label of which the newest attempt is looked up, and others that are named.
const MAX_COMPARED: usize = 32;
const MAX_OTHERS: usize = 20;

pub fn id_of(test: &TestKey) -> String {
    let mut hash = blake3::Hasher::new_derive_key("kiln 2026 id of a test in addresses");
    for part in [&test.instance, &test.label, &test.configuration] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().to_hex()[..DIGITS].to_owned()
}

/// The page of a test.
pub fn link(test: &TestKey) -> String {
    format!("/tests/{}", id_of(test))
}

/// What tells tests of one label apart.
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
pub struct Which {
    /// The instance in which labels are looked for; `None`: all instances.
    pub instance: Option<String>,
    /// The beginning of the configuration.
    pub configuration: Option<String>,
}

impl Which {
    fn is(&self, test: &TestKey) -> bool {
        self.instance.as_ref().is_none_or(|it| *it == test.instance)
            && self.configuration.as_ref().is_none_or(|it| test.configuration.starts_with(it))
    }
}

/// The test that is asked for, and others of the same label.
pub struct Found {
    pub test: TestKey,
    pub others: Vec<TestKey>,
}

/// The test with this id, or the one of this label that ran last.
pub async fn find(state: &WebState, id: &str, which: &Which) -> Result<Found, WebError> {
    for days in [RECENT, u64::MAX] {
        let tests = state.kept.tested(&state.tests.history, days).await?;
        let wanted = tests.iter().find(|it| is_id(id) && id_of(&it.test) == id);
        let label = wanted.map_or(id, |it| it.test.label.as_str());
        let alike: Vec<&Tested> = tests.iter().filter(|it| it.test.label == label).collect();
        let asked = alike.iter().copied().filter(|it| which.is(&it.test)).collect();
        let found = match wanted {
            Some(wanted) => Some(wanted.test.clone()),
            None => newest(state, asked).await?,
        };
        if let Some(test) = found {
            let others = alike.iter().map(|it| &it.test).filter(|it| **it != test);
            let others = others.take(MAX_OTHERS).cloned().collect();
            return Ok(Found { test, others });
        }
    }
    Err(WebError::not_found(
        "no test has this id or label, in this instance and configuration",
        "It appears when it has run here, or was reported; `kiln tests list` and /tests have all.",
    ))
}

/// Of tests of one label in several configurations the one of which an attempt began last, since each flag that is
/// changed makes another one.
async fn newest(state: &WebState, mut found: Vec<&Tested>) -> Result<Option<TestKey>, WebError> {
    let last = |it: &&Tested| it.days.last_key_value().map(|(day, _)| *day);
    found.sort_by_key(|it| std::cmp::Reverse(last(it)));
    if let Some(other) = found
        .first()
        .and_then(|first| found.iter().find(|it| it.test.instance != first.test.instance))
    {
        return Err(ambiguous(&other.test.label));
    }
    // Days are as exact as it gets without reading attempts.
    let newest_day = found.first().and_then(last);
    let within: Vec<_> = found.iter().take_while(|it| last(it) == newest_day).collect();
    if let [only] = within.as_slice() {
        return Ok(Some(only.test.clone()));
    }
    let (history, keys) = (state.tests.history.clone(), within.into_iter().take(MAX_COMPARED));
    let keys: Vec<TestKey> = keys.map(|it| it.test.clone()).collect();
    let compared = async move {
        let mut newest: Option<(Option<Time>, TestKey)> = None;
        for key in keys {
            let began = history.newest(&key, 1, false).await?.first().map(|it| it.started);
            if newest.as_ref().is_none_or(|(last, _)| began > *last) {
                newest = Some((began, key));
            }
        }
        Ok::<_, kiln_ci::history::HistoryError>(newest.map(|(_, key)| key))
    };
    Ok(state.kept.beside(compared).await??)
}

fn ambiguous(label: &str) -> WebError {
    let label = crate::format::short(label, 200);
    WebError::invalid(
        format!("several tests are called {label:?}, in several instances"),
        "Say in which one (--instance), or take the id of one of them from the list of tests.",
    )
}

fn is_id(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_and_differ_where_any_part_does() {
        let test = |instance: &str, label: &str, configuration: &str| TestKey {
            instance: instance.into(),
            label: label.into(),
            configuration: configuration.into(),
        };
        let ids = [
            test("a", "b", "c"),
            test("ab", "", "c"),
            test("", "ab", "c"),
            test("a", "b", ""),
            test("a", &"<script>".repeat(10_000), "c"),
        ]
        .map(|it| id_of(&it));
        assert!(ids.iter().all(|id| is_id(id)));
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }
}
