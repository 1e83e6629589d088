//! Numbers with their nouns, in messages for people.

use std::fmt::Display;

/// `1 worker`, `2 workers`: `one` with an s for more or none.
pub fn counted<N: Display + PartialEq + From<u8>>(number: N, one: &str) -> String {
    let end = if number == N::from(1) { "" } else { "s" };
    format!("{number} {one}{end}")
}

/// `once`, `2 times`.
pub fn times<N: Display + PartialEq + From<u8>>(number: N) -> String {
    if number == N::from(1) { "once".to_owned() } else { format!("{number} times") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one() {
        assert_eq!([0, 1, 2].map(|it: u32| counted(it, "run")), ["0 runs", "1 run", "2 runs"]);
        assert_eq!([0, 1, 2].map(|it: usize| times(it)), ["0 times", "once", "2 times"]);
    }
}
