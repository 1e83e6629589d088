//! Bounds on what one execution may take up in the journal.

use kiln_protos::events::{Begun, Execution};

/// Longest string kept, in bytes.
pub const MAX_STRING: usize = 1000;
/// Longest status message kept, in bytes.
pub const MAX_MESSAGE: usize = 4000;
/// The number of platform properties kept.
pub const MAX_PROPERTIES: usize = 64;
/// Largest encoded `ActionResult` kept; the action cache may hold a larger one.
pub const MAX_RESULT: usize = 64 << 10;

/// The execution with everything from outside cut to its bound.
pub fn bounded(execution: &Execution) -> Execution {
    let mut kept = execution.clone();
    for text in [
        &mut kept.id,
        &mut kept.instance_name,
        &mut kept.invocation_id,
        &mut kept.correlated_invocations_id,
        &mut kept.target_id,
        &mut kept.mnemonic,
        &mut kept.configuration_id,
        &mut kept.tool_name,
        &mut kept.tool_version,
        &mut kept.worker,
    ] {
        cut(text, MAX_STRING);
    }
    cut(&mut kept.status_message, MAX_MESSAGE);
    kept.platform.truncate(MAX_PROPERTIES);
    for property in &mut kept.platform {
        cut(&mut property.name, MAX_STRING);
        cut(&mut property.value, MAX_STRING);
    }
    if kept.action_result.len() > MAX_RESULT {
        kept.action_result.clear();
    } else {
        // A slice of a larger message would keep all of it in memory.
        kept.action_result = bytes::Bytes::copy_from_slice(&kept.action_result);
    }
    kept
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
    if text.len() > limit {
        let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
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
}
