//! Names of tests in addresses. Labels may hold anything and be long: an address has a hash of them.

use kiln_ci::history::Tested;
use kiln_ci::model::TestKey;

use crate::web::error::WebError;
use crate::web::state::WebState;

/// Hexadecimal digits of an id: 96 bits.
const DIGITS: usize = 24;
/// In how many days a test is looked for first, and then in all there are.
const RECENT: u64 = 14;

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

/// The test with this id, or with this label in one instance alone.
pub async fn find(state: &WebState, id: &str) -> Result<TestKey, WebError> {
    for days in [RECENT, u64::MAX] {
        let tests = state.kept.tested(&state.tests.history, days).await?;
        let is_it = |it: &&Tested| match is_id(id) {
            true => id_of(&it.test) == id,
            false => it.test.label == id,
        };
        let found: Vec<_> = tests.iter().filter(is_it).collect();
        if let Some(newest) = newest(&found)? {
            return Ok(newest.clone());
        }
    }
    Err(WebError::not_found(
        "no test has this id or label",
        "It appears when it has run here, or was reported. The list of tests is below /tests.",
    ))
}

/// Of several configurations the one that ran last: each flag that is changed makes another one.
fn newest<'a>(found: &[&'a Tested]) -> Result<Option<&'a TestKey>, WebError> {
    let last = |it: &&&Tested| it.days.last_key_value().map(|(day, sum)| (*day, sum.attempts()));
    let Some(newest) = found.iter().max_by_key(last) else { return Ok(None) };
    match found.iter().all(|it| it.test.instance == newest.test.instance) {
        true => Ok(Some(&newest.test)),
        false => Err(ambiguous(&newest.test.label)),
    }
}

fn ambiguous(label: &str) -> WebError {
    let label = crate::web::format::short(label, 200);
    WebError::invalid(
        format!("several tests are called {label:?}, in several instances"),
        "Take the id of one of them from the list of tests.",
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
