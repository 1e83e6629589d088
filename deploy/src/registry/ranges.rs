//! Parts of blobs: which one a reader asks for, and where a part goes that is sent.

/// A part of a blob: its first and its last byte, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub first: u64,
    pub last: u64,
}

/// What a `Range` header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All of it. A header that cannot be read, or asks for several parts, counts as none (RFC 9110, 14.2).
    Whole,
    Part(Span),
    /// Nothing of what is asked for is in the blob.
    Nothing,
}

impl Span {
    /// How many bytes the span has.
    pub fn length(self) -> u64 {
        self.last - self.first + 1
    }

    /// The span of `A-B`, as a `Content-Range` header of an upload says it (also `bytes A-B/SIZE`, which some clients
    /// send). `None`: it is none.
    pub fn of_chunk(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix("bytes").map_or(text, |it| it.trim_start_matches([' ', '=']));
        let text = text.split_once('/').map_or(text, |(span, _)| span);
        let (first, last) = text.split_once('-')?;
        let span = Self { first: number(first)?, last: number(last)? };
        (span.first <= span.last && span.last < u64::MAX).then_some(span)
    }
}

/// What the text of a `Range` header asks for, of a blob of `size` bytes.
pub fn wanted(text: &str, size: u64) -> Wanted {
    let Some(span) = text.trim().strip_prefix("bytes=") else { return Wanted::Whole };
    let Some((first, last)) = span.trim().split_once('-') else { return Wanted::Whole };
    let part = |first: u64, last: u64| match first < size && first <= last {
        true => Wanted::Part(Span { first, last: last.min(size - 1) }),
        false => Wanted::Nothing,
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) => part(first, last),
        (Some(first), None) if last.is_empty() => part(first, u64::MAX),
        (None, Some(0)) if first.is_empty() => Wanted::Nothing,
        (None, Some(length)) if first.is_empty() => part(size.saturating_sub(length), u64::MAX),
        _ => Wanted::Whole,
    }
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|it| it.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(first: u64, last: u64) -> Wanted {
        Wanted::Part(Span { first, last })
    }

    #[test]
    fn readers_ask_for_a_part_from_either_end() {
        for (text, expected) in [
            ("bytes=500-1499", part(500, 1499)),
            ("bytes=500-", part(500, 2047)),
            ("bytes=-500", part(1548, 2047)),
            ("bytes=-5000", part(0, 2047)),
            ("bytes=2000-5000", part(2000, 2047)),
            ("bytes=500-0", Wanted::Nothing),
            ("bytes=5000-10000", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=0-1,4-5", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=99999999999999999999-", Wanted::Whole),
        ] {
            assert_eq!(wanted(text, 2048), expected, "{text}");
        }
        assert_eq!(wanted("bytes=0-", 0), Wanted::Nothing);
    }

    #[test]
    fn a_chunk_says_where_it_goes() {
        let span = Some(Span { first: 5, last: 9 });
        assert_eq!(Span::of_chunk("5-9"), span);
        assert_eq!(Span::of_chunk("bytes 5-9/100"), span);
        for wrong in ["", "-", "5-", "9-5", "a-b", "0-18446744073709551615"] {
            assert_eq!(Span::of_chunk(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_blob(text in "bytes=[0-9]{0,21}-[0-9]{0,21}", size in 0u64..5000) {
            if let Wanted::Part(span) = wanted(&text, size) {
                prop_assert!(span.first <= span.last && span.last < size);
                prop_assert!(span.length() <= size);
            }
        }
    }
}
