//! When an action ran that ran in parts. No I/O.

use std::collections::BTreeSet;

use kiln_protos::protobuf::Timestamp;
use kiln_protos::reapi::ExecutedActionMetadata;

/// Workers that are named one by one; the others are counted.
const MAX_NAMED: usize = 8;

/// The times of the whole, step by step from the first part's beginning to the last one's end: what
/// whoever waited had to wait for.
pub fn metadata(parts: &[ExecutedActionMetadata]) -> ExecutedActionMetadata {
    let first = |time: fn(&ExecutedActionMetadata) -> Option<Timestamp>| {
        parts.iter().filter_map(time).min_by_key(order)
    };
    let last = |time: fn(&ExecutedActionMetadata) -> Option<Timestamp>| {
        parts.iter().filter_map(time).max_by_key(order)
    };
    ExecutedActionMetadata {
        worker: workers(parts.iter().map(|part| part.worker.as_str())),
        worker_start_timestamp: first(|it| it.worker_start_timestamp),
        worker_completed_timestamp: last(|it| it.worker_completed_timestamp),
        input_fetch_start_timestamp: first(|it| it.input_fetch_start_timestamp),
        input_fetch_completed_timestamp: first(|it| it.input_fetch_completed_timestamp),
        execution_start_timestamp: first(|it| it.execution_start_timestamp),
        execution_completed_timestamp: last(|it| it.execution_completed_timestamp),
        output_upload_start_timestamp: last(|it| it.output_upload_start_timestamp),
        output_upload_completed_timestamp: last(|it| it.output_upload_completed_timestamp),
        ..Default::default()
    }
}

fn order(time: &Timestamp) -> (i64, i32) {
    (time.seconds, time.nanos)
}

/// The names of the workers as one text, each once, in alphabetical order.
pub fn workers<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: BTreeSet<&str> = names.filter(|name| !name.is_empty()).collect();
    let more = names.len().saturating_sub(MAX_NAMED);
    let mut text = names.into_iter().take(MAX_NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ran_from_the_first_beginning_to_the_last_end() {
        let part = |worker: &str, start: i64, end: i64| ExecutedActionMetadata {
            worker: worker.to_owned(),
            execution_start_timestamp: Some(Timestamp { seconds: start, nanos: 0 }),
            execution_completed_timestamp: Some(Timestamp { seconds: end, nanos: 0 }),
            ..Default::default()
        };
        let whole = metadata(&[part("b", 5, 9), part("a", 7, 20), part("b", 6, 8)]);
        assert_eq!(whole.worker, "a, b");
        assert_eq!(whole.execution_start_timestamp.unwrap().seconds, 5);
        assert_eq!(whole.execution_completed_timestamp.unwrap().seconds, 20);
        assert_eq!(whole.input_fetch_start_timestamp, None);
        let many: Vec<String> = (10..30).map(|n| n.to_string()).collect();
        assert!(workers(many.iter().map(String::as_str)).ends_with("17 and 12 more"));
    }
}
