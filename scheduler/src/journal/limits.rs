//! Bounds on what one execution may take up in the journal.

use std::borrow::Cow;

use kiln_protos::events::{Begun, Execution};

/// Longest string kept, in bytes.
pub const MAX_STRING: usize = 1000;
/// Longest status message kept, in bytes.
pub const MAX_MESSAGE: usize = 4000;
/// The number of platform properties kept.
pub const MAX_PROPERTIES: usize = 64;
/// Largest encoded `ActionResult` kept; the action cache may hold a larger one.
pub const MAX_RESULT: usize = 64 << 10;

/// The execution with everything from outside cut to its bound. Nearly all are within it, and are not copied.
pub fn bounded(execution: &Execution) -> Cow<'_, Execution> {
    if is_bounded(execution) {
        return Cow::Borrowed(execution);
    }
    let mut kept = execution.clone();
    texts_mut(&mut kept).into_iter().for_each(|text| cut(text, MAX_STRING));
    cut(&mut kept.status_message, MAX_MESSAGE);
    kept.platform.truncate(MAX_PROPERTIES);
    for property in &mut kept.platform {
        cut(&mut property.name, MAX_STRING);
        cut(&mut property.value, MAX_STRING);
    }
    if kept.action_result.len() > MAX_RESULT {
        kept.action_result.clear();
    }
    Cow::Owned(kept)
}

fn is_bounded(it: &Execution) -> bool {
    let texts = [
        &it.id,
        &it.instance_name,
        &it.invocation_id,
        &it.correlated_invocations_id,
        &it.target_id,
        &it.mnemonic,
        &it.configuration_id,
        &it.tool_name,
        &it.tool_version,
        &it.worker,
    ];
    let properties = it.platform.iter().flat_map(|property| [&property.name, &property.value]);
    it.status_message.len() <= MAX_MESSAGE
        && it.platform.len() <= MAX_PROPERTIES
        && it.action_result.len() <= MAX_RESULT
        && texts.into_iter().chain(properties).all(|text| text.len() <= MAX_STRING)
}

fn texts_mut(it: &mut Execution) -> [&mut String; 10] {
    [
        &mut it.id,
        &mut it.instance_name,
        &mut it.invocation_id,
        &mut it.correlated_invocations_id,
        &mut it.target_id,
        &mut it.mnemonic,
        &mut it.configuration_id,
        &mut it.tool_name,
        &mut it.tool_version,
        &mut it.worker,
    ]
}

/// The requests that have begun, with everything from outside cut to its bound.
pub fn bounded_begun(begun: &Begun) -> Begun {
    let mut kept = begun.clone();
    for text in [
        &mut kept.invocation_id,
        &mut kept.correlated_invocations_id,
        &mut kept.tool_name,
        &mut kept.tool_version,
        &mut kept.instance_name,
        &mut kept.mnemonic,
    ] {
        cut(text, MAX_STRING);
    }
    kept
}

/// Cuts at the last character that ends within `limit` bytes.
fn cut(text: &mut String, limit: usize) {
    text.truncate(text.floor_char_boundary(limit));
}

#[cfg(test)]
mod tests {
    use kiln_protos::events::Property;

    use super::*;

    #[test]
    fn long_strings_are_cut_between_characters_and_large_results_left_out() {
        let execution = Execution {
            target_id: "ä".repeat(MAX_STRING),
            action_result: vec![0; MAX_RESULT + 1].into(),
            ..Default::default()
        };
        let kept = bounded(&execution);
        assert_eq!(kept.target_id, "ä".repeat(MAX_STRING / 2));
        assert!(kept.action_result.is_empty());
    }

    #[test]
    fn what_is_within_its_bounds_is_not_copied_and_each_text_has_one() {
        assert!(matches!(bounded(&Execution::default()), Cow::Borrowed(_)));
        for place in 0..10 {
            let mut execution = Execution::default();
            *texts_mut(&mut execution)[place] = "x".repeat(MAX_STRING + 1);
            let mut kept = bounded(&execution).into_owned();
            assert_eq!(texts_mut(&mut kept)[place].len(), MAX_STRING);
        }
        let long = "x".repeat(MAX_STRING + 1);
        let property =
            |name: &str, value: &str| Property { name: name.into(), value: value.into() };
        for (count, property) in [
            (1, property(&long, "")),
            (1, property("", &long)),
            (MAX_PROPERTIES + 1, property("", "")),
        ] {
            let execution = Execution { platform: vec![property; count], ..Default::default() };
            assert!(is_bounded(&bounded(&execution)) && !is_bounded(&execution));
        }
    }
}
