//! Ids of what begins at some time, such as rollouts and runs of pipelines.

/// 12 small letters and digits or more. Later ones come later in the order of texts, and none is guessed twice.
pub fn id_at(millis: u64) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut number = u128::from(millis) * 46_656 + u128::from(fastrand::u32(0..46_656));
    let mut text = Vec::new();
    while number > 0 || text.len() < 12 {
        let digit = usize::try_from(number % 36).unwrap_or(0);
        text.push(DIGITS.get(digit).copied().unwrap_or(b'0'));
        number /= 36;
    }
    text.reverse();
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_ones_come_later() {
        let ids = [0, 1, 35, 36, 1_790_000_000_000, 1_790_000_000_001].map(id_at);
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        assert!(ids.iter().all(|id| id.len() == 12), "{ids:?}");
    }
}
