//! Queues that forget their oldest items.

use std::collections::VecDeque;

/// Appends `item` to a queue of at most `limit` items.
pub fn push<T>(queue: &mut VecDeque<T>, item: T, limit: usize) {
    if queue.len() == limit {
        queue.pop_front();
    }
    queue.push_back(item);
}
