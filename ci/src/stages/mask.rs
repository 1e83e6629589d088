//! Secrets in what is printed, replaced as it goes by: wherever one piece of it ends and the next begins.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// What is shown instead.
pub const MASK: &[u8] = b"***";
/// Bytes of a secret. A shorter one is in many an innocent word, and is guessed; a longer one is no password, token or key.
pub const MIN_SECRET: usize = 8;
pub const MAX_SECRET: usize = 64 << 10;
/// Forms of all secrets of one stage.
const MAX_FORMS: usize = 2_000;

/// Characters that are encoded in parts of URLs: RFC 3986, section 2.3, leaves all others as they are.
const COMPONENT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Everything that is not to be seen: secrets, their lines, and the forms in which programs repeat them.
#[derive(Clone, Default)]
pub struct Forms {
    /// Longest first; each once.
    needles: Vec<Vec<u8>>,
    /// Whether one begins with this byte.
    first: Vec<bool>,
}

impl std::fmt::Debug for Forms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forms").field("count", &self.needles.len()).finish_non_exhaustive()
    }
}

/// What begins at a place of a text.
enum Begins {
    Nothing,
    /// A secret begins here: so many bytes are not to be seen.
    Hidden(usize),
    /// What comes next decides.
    Perhaps,
}

impl Forms {
    /// The forms of these secrets. `None`: there are more of them than are looked for.
    pub fn of<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut needles = Vec::new();
        for secret in secrets {
            add_forms(secret, &mut needles);
            // Logs put something before each line of a key.
            let lines = secret.split(|it| *it == b'\n').map(<[u8]>::trim_ascii);
            for line in lines.filter(|it| *it != secret) {
                add_forms(line, &mut needles);
            }
            if needles.len() > MAX_FORMS {
                return None;
            }
        }
        needles.retain(|it| it.len() >= MIN_SECRET);
        needles.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        needles.dedup();
        let mut first = vec![false; 256];
        for byte in needles.iter().filter_map(|it| it.first()) {
            if let Some(known) = first.get_mut(usize::from(*byte)) {
                *known = true;
            }
        }
        Some(Self { needles, first })
    }

    pub fn is_empty(&self) -> bool {
        self.needles.is_empty()
    }

    /// `last`: nothing comes after `rest`.
    fn begins(&self, rest: &[u8], last: bool) -> Begins {
        let may = rest.first().and_then(|it| self.first.get(usize::from(*it)));
        if !may.copied().unwrap_or(false) {
            return Begins::Nothing;
        }
        let mut hidden = 0;
        for needle in &self.needles {
            if rest.starts_with(needle) {
                hidden = hidden.max(needle.len());
            } else if needle.starts_with(rest) {
                match last {
                    false => return Begins::Perhaps,
                    // So much of it would be most of it.
                    true if rest.len() >= MIN_SECRET => hidden = hidden.max(rest.len()),
                    true => {}
                }
            }
        }
        if hidden == 0 { Begins::Nothing } else { Begins::Hidden(hidden) }
    }
}

/// The forms of one text.
fn add_forms(text: &[u8], to: &mut Vec<Vec<u8>>) {
    if text.len() < MIN_SECRET {
        return;
    }
    to.push(text.to_vec());
    // Before it there may be anything: three ways in which its bytes fall into groups of three.
    for before in 0..3_usize {
        let padded: Vec<u8> = [&[0_u8; 3][..before], text].concat();
        // Characters that depend on what is around it as well.
        let from = [0, 2, 3].get(before).copied().unwrap_or(0);
        let open = usize::from(!padded.len().is_multiple_of(3));
        for encoded in [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
            let until = encoded.len().saturating_sub(open);
            to.extend(encoded.get(from..until).map(|it| it.as_bytes().to_vec()));
        }
    }
    for set in [&COMPONENT, NON_ALPHANUMERIC] {
        let encoded = percent_encode(text, set).to_string();
        to.push(lower_escapes(&encoded));
        to.push(encoded.into_bytes());
    }
    // As JSON has it.
    if let Some(quoted) = std::str::from_utf8(text).ok().and_then(|it| serde_json::to_vec(it).ok())
    {
        let inner = quoted.len().checked_sub(1).and_then(|end| quoted.get(1..end));
        to.extend(inner.map(<[u8]>::to_vec));
    }
}

/// An encoded text with its escapes in lower case: `%2F` as `%2f`.
fn lower_escapes(encoded: &str) -> Vec<u8> {
    let mut left = 0_usize;
    let lower = |byte: u8| {
        if byte == b'%' {
            left = 2;
            return byte;
        }
        let escaped = left > 0;
        left = left.saturating_sub(usize::from(escaped));
        if escaped { byte.to_ascii_lowercase() } else { byte }
    };
    encoded.bytes().map(lower).collect()
}

/// Masks secrets in one stream, as it comes. It holds back no more than the beginning of what may be a secret.
#[derive(Debug)]
pub struct Masker {
    forms: Forms,
    held: Vec<u8>,
    /// Bytes from here on that are not to be seen.
    hidden: usize,
}

impl Masker {
    pub fn new(forms: Forms) -> Self {
        Self { forms, held: Vec::new(), hidden: 0 }
    }

    /// What may be seen of a stream by now that goes on with `data`.
    pub fn pass(&mut self, data: &[u8]) -> Vec<u8> {
        if self.forms.is_empty() {
            return data.to_vec();
        }
        self.held.extend_from_slice(data);
        self.release(false)
    }

    /// What is left when the stream has ended.
    pub fn end(&mut self) -> Vec<u8> {
        self.release(true)
    }

    fn release(&mut self, last: bool) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        let mut seen = Vec::with_capacity(held.len());
        let mut at = 0;
        while let Some(rest) = held.get(at..).filter(|it| !it.is_empty()) {
            match self.forms.begins(rest, last) {
                Begins::Perhaps => {
                    self.held = rest.to_vec();
                    break;
                }
                Begins::Hidden(length) => {
                    if self.hidden == 0 {
                        seen.extend_from_slice(MASK);
                    }
                    self.hidden = self.hidden.max(length);
                }
                Begins::Nothing => {}
            }
            match self.hidden {
                0 => seen.extend(rest.first()),
                _ => self.hidden -= 1,
            }
            at += 1;
        }
        seen
    }
}

/// A whole text without its secrets.
pub fn masked(text: &[u8], forms: &Forms) -> Vec<u8> {
    let mut masker = Masker::new(forms.clone());
    let mut seen = masker.pass(text);
    seen.extend(masker.end());
    seen
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    use super::*;

    fn forms(secrets: &[&[u8]]) -> Forms {
        Forms::of(secrets.iter().copied()).unwrap()
    }

    fn shown(text: &[u8], forms: &Forms) -> String {
        String::from_utf8(masked(text, forms)).unwrap()
    }

    #[test]
    fn forms_that_programs_repeat_are_masked_as_well() {
        let forms = forms(&[b"p\"ss/w+rd-17"]);
        assert_eq!(shown(b"it is p\"ss/w+rd-17.", &forms), "it is ***.");
        for url in ["p%22ss%2Fw%2Brd-17", "p%22ss%2fw%2brd-17", "p%22ss%2Fw%2Brd%2D17"] {
            assert_eq!(shown(format!("https://u:{url}@h/").as_bytes(), &forms), "https://u:***@h/");
        }
        assert_eq!(shown(br#"{"t":"p\"ss/w+rd-17"}"#, &forms), r#"{"t":"***"}"#);
        assert_eq!(shown(b"nothing of it: p\"ss/w", &forms), "nothing of it: p\"ss/w");
    }

    #[test]
    fn a_key_of_several_lines_is_masked_line_by_line() {
        let forms = forms(&[b"-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nab\n-----END KEY-----"]);
        assert_eq!(shown(b"1: MIIEvQIBADANBgkq\n2: ab\n", &forms), "1: ***\n2: ab\n");
    }

    #[test]
    fn what_overlaps_is_hidden_as_a_whole() {
        let forms = forms(&[b"abcdefgh", b"efghijkl"]);
        assert_eq!(shown(b"<abcdefghijkl>", &forms), "<***>");
        // A secret that overlaps with itself must not hold back the output for ever.
        let again = self::forms(&[b"aaaaaaaa"]);
        assert_eq!(shown(&[b'a'; 100_000], &again), "***");
    }

    #[test]
    fn what_is_cut_off_shows_no_more_than_what_is_too_short_to_be_one() {
        let forms = forms(&[b"0123456789abcdef"]);
        assert_eq!(shown(b"x 0123456789a", &forms), "x ***");
        assert_eq!(shown(b"x 0123456", &forms), "x 0123456");
    }

    proptest! {
        #[test]
        fn wherever_pieces_end_the_same_is_seen(
            text in "[ab]{0,60}", secret in "[ab]{8,10}", other in "[ab]{8,12}",
            cuts in proptest::collection::vec(0_usize..60, 0..6)
        ) {
            let forms = forms(&[secret.as_bytes(), other.as_bytes()]);
            let whole = masked(text.as_bytes(), &forms);
            let mut cuts: Vec<_> = cuts.into_iter().map(|it| it.min(text.len())).collect();
            cuts.sort_unstable();
            let mut masker = Masker::new(forms);
            let (mut seen, mut from) = (Vec::new(), 0);
            for cut in cuts.into_iter().chain([text.len()]) {
                seen.extend(masker.pass(&text.as_bytes()[from..cut]));
                from = cut;
            }
            seen.extend(masker.end());
            prop_assert_eq!(&seen, &whole);
            let seen = String::from_utf8(seen).unwrap();
            for part in seen.split("***") {
                prop_assert!(!part.contains(&secret) && !part.contains(&other), "{}", seen);
            }
        }

        #[test]
        fn base64_is_found_wherever_it_begins(
            secret in proptest::collection::vec(any::<u8>(), 12..40),
            before in proptest::collection::vec(any::<u8>(), 0..5),
            after in proptest::collection::vec(any::<u8>(), 0..5),
        ) {
            let forms = forms(&[&secret]);
            let whole = [before.as_slice(), &secret, &after].concat();
            for text in [STANDARD.encode(&whole), URL_SAFE.encode(&whole)] {
                let seen = masked(text.as_bytes(), &forms);
                prop_assert!(seen.windows(3).any(|it| it == MASK), "{}", text);
                // No more of it is left than the characters that it shares with what is around it.
                let most = (before.len() + after.len()) * 4 / 3 + 3 + 3 + MASK.len() + 2 + 4;
                prop_assert!(seen.len() <= most, "{} of {}", seen.len(), text.len());
            }
        }
    }
}
