//! Numbers with their nouns, in messages for people.

use std::fmt::Display;
use std::time::Duration;

/// `1 worker`, `2 workers`: `one` with an s for more or none.
pub fn counted<N: Display + PartialEq + From<u8>>(number: N, one: &str) -> String {
    let end = if number == N::from(1) { "" } else { "s" };
    format!("{number} {one}{end}")
}

/// `once`, `2 times`.
pub fn times<N: Display + PartialEq + From<u8>>(number: N) -> String {
    if number == N::from(1) { "once".to_owned() } else { format!("{number} times") }
}

/// A time in its two largest units, such as `1h 30m` or `250ms`; `0s` for less than a millisecond.
pub fn duration(time: Duration) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut rest = time.as_millis();
    let mut parts = Vec::new();
    for (unit, size) in units {
        if rest >= size {
            parts.push(format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    parts.truncate(2);
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one() {
        assert_eq!([0, 1, 2].map(|it: u32| counted(it, "run")), ["0 runs", "1 run", "2 runs"]);
        assert_eq!([0, 1, 2].map(|it: usize| times(it)), ["0 times", "once", "2 times"]);
    }

    #[test]
    fn durations_are_short() {
        let shown = [0, 250, 1_500, 59_000, 600_000, 5_400_000, 90_061_000];
        let shown = shown.map(|it| duration(Duration::from_millis(it)));
        assert_eq!(shown, ["0s", "250ms", "1s 500ms", "59s", "10m", "1h 30m", "1d 1h"]);
    }
}
