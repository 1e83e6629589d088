//! What programs print for terminals: their colours are kept, every other control sequence is
//! left out.

use maud::{Markup, html};

const ESCAPE: char = '\u{1b}';
const BELL: char = '\u{7}';
/// Largest part of one colour, halved: what is brighter counts as there.
const THRESHOLD: u32 = 96;
/// Colours of a terminal: eight, and the same bright.
const COLOURS: u32 = 16;

/// A part of what was printed.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    /// The parameters of "select graphic rendition", `1;31` of `ESC [ 1 ; 31 m`.
    Style(&'a str),
}

/// Cuts `text` into what is shown and how; ECMA-48 control sequences of other kinds are gone.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let end = rest.find(ESCAPE).unwrap_or(rest.len());
            if end > 0 {
                let (shown, after) = rest.split_at(end);
                rest = after;
                return Some(Piece::Text(shown));
            }
            let after = &rest[ESCAPE.len_utf8()..];
            let (sequence, left) = sequence(after);
            rest = left;
            if let Some(parameters) = sequence {
                return Some(Piece::Style(parameters));
            }
        }
    })
}

/// The sequence after an escape character, where it is about style, and what comes after it.
fn sequence(after: &str) -> (Option<&str>, &str) {
    if let Some(body) = after.strip_prefix('[') {
        // A control sequence ends with its first letter.
        let Some(end) = body.find(|c: char| ('@'..='~').contains(&c)) else { return (None, "") };
        let (parameters, left) = (&body[..end], &body[end + 1..]);
        return (body[end..].starts_with('m').then_some(parameters), left);
    }
    if let Some(body) = after.strip_prefix(']') {
        // A command of the operating system, a hyperlink for example: up to BEL or ESC \.
        return match body.find([BELL, ESCAPE]) {
            None => (None, ""),
            Some(end) if body[end..].starts_with(BELL) => (None, &body[end + 1..]),
            Some(end) => (None, body[end + 1..].trim_start_matches('\\')),
        };
    }
    let mut letters = after.chars();
    letters.next();
    (None, letters.as_str())
}

fn is_shown(c: char) -> bool {
    c == '\n' || c == '\t' || !c.is_control()
}

/// The text without any control sequence.
pub fn plain(text: &str) -> String {
    let shown = pieces(text).filter_map(|piece| match piece {
        Piece::Text(text) => Some(text),
        Piece::Style(_) => None,
    });
    shown.flat_map(str::chars).filter(|c| is_shown(*c)).collect()
}

/// The text for a terminal: with colours and weight alone, which end with the text.
pub fn coloured(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut style = Style::default();
    for piece in pieces(text) {
        match piece {
            Piece::Text(text) => shown.extend(text.chars().filter(|c| is_shown(*c))),
            Piece::Style(parameters) => {
                style.apply(parameters);
                shown.push_str(&style.sequence());
            }
        }
    }
    if style != Style::default() {
        shown.push_str(&Style::default().sequence());
    }
    shown
}

/// The text for a page: spans of classes, `c1` to `c15` for colours, `b1` to `b15` for grounds.
pub fn markup(text: &str) -> Markup {
    let mut style = Style::default();
    html! {
        @for piece in pieces(text) {
            @match piece {
                Piece::Style(parameters) => { ({ style.apply(parameters); "" }) }
                Piece::Text(text) => {
                    @let shown: String = text.chars().filter(|c| is_shown(*c)).collect();
                    @if style == Style::default() { (shown) }
                    @else { span class=(style.classes()) { (shown) } }
                }
            }
        }
    }
}

/// How text looks. Colours are 0 to 15; finer ones become the nearest of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Style {
    ink: Option<u32>,
    ground: Option<u32>,
    bold: bool,
    dim: bool,
    italic: bool,
    underlined: bool,
}

impl Style {
    fn apply(&mut self, parameters: &str) {
        let mut codes = parameters.split([';', ':']).map(|code| code.parse().unwrap_or(0));
        while let Some(code) = codes.next() {
            match code {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                3 => self.italic = true,
                4 => self.underlined = true,
                22 => (self.bold, self.dim) = (false, false),
                23 => self.italic = false,
                24 => self.underlined = false,
                30..=37 => self.ink = Some(code - 30),
                38 => self.ink = palette(&mut codes).or(self.ink),
                39 => self.ink = None,
                40..=47 => self.ground = Some(code - 40),
                48 => self.ground = palette(&mut codes).or(self.ground),
                49 => self.ground = None,
                90..=97 => self.ink = Some(code - 90 + 8),
                100..=107 => self.ground = Some(code - 100 + 8),
                // Blinking, concealed and the like.
                _ => {}
            }
        }
    }

    fn sequence(self) -> String {
        let colour = |code: u32, dark: u32, bright: u32| {
            if code < 8 { format!(";{}", dark + code) } else { format!(";{}", bright + code - 8) }
        };
        let mut text = format!("{ESCAPE}[0");
        for (is_set, code) in
            [(self.bold, ";1"), (self.dim, ";2"), (self.italic, ";3"), (self.underlined, ";4")]
        {
            text.push_str(if is_set { code } else { "" });
        }
        text.push_str(&self.ink.map_or_else(String::new, |code| colour(code, 30, 90)));
        text.push_str(&self.ground.map_or_else(String::new, |code| colour(code, 40, 100)));
        text.push('m');
        text
    }

    fn classes(self) -> String {
        let mut classes = Vec::new();
        for (is_set, class) in [
            (self.bold, "bold"),
            (self.dim, "faint"),
            (self.italic, "italic"),
            (self.underlined, "under"),
        ] {
            if is_set {
                classes.push(class.to_owned());
            }
        }
        classes.extend(self.ink.map(|code| format!("c{code}")));
        classes.extend(self.ground.map(|code| format!("b{code}")));
        classes.join(" ")
    }
}

/// `5;N` of 256 colours, or `2;R;G;B`, as one of 16.
fn palette(codes: &mut impl Iterator<Item = u32>) -> Option<u32> {
    match codes.next()? {
        5 => Some(match codes.next()? {
            code @ 0..COLOURS => code,
            code @ 16..=231 => {
                let code = code - 16;
                nearest([code / 36, code / 6 % 6, code % 6].map(|part| part * 51))
            }
            code @ 232..=255 => nearest([(code - 232) * 10 + 8; 3]),
            _ => return None,
        }),
        2 => Some(nearest([codes.next()?, codes.next()?, codes.next()?])),
        _ => None,
    }
}

fn nearest(parts: [u32; 3]) -> u32 {
    let brightest = parts.into_iter().max().unwrap_or(0);
    let is_there = |part: u32| part > THRESHOLD && part * 2 > brightest;
    let [red, green, blue] = parts.map(|part| u32::from(is_there(part)));
    let hue = red | green << 1 | blue << 2;
    match (hue, brightest) {
        (0, dark) if dark > 64 => 8,
        (7, grey) if grey < 170 => 8,
        (7, light) if light < 230 => 7,
        (hue, bright) if hue != 0 && bright > 200 => hue + 8,
        (hue, _) => hue,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn colours_are_kept_and_what_moves_or_links_is_not() {
        let text = "\u{1b}[1;31merror:\u{1b}[0m x\r\n\ty\u{7}\u{1b}[2J\u{1b}]8;;http://e\u{7}z";
        assert_eq!(plain(text), "error: x\n\tyz");
        assert_eq!(coloured(text), "\u{1b}[0;1;31merror:\u{1b}[0m x\n\tyz");
        let page = markup("\u{1b}[1;31m<b>\u{1b}[0m plain").into_string();
        assert_eq!(page, "<span class=\"bold c1\">&lt;b&gt;</span> plain");
        assert_eq!(plain("cut \u{1b}[3"), "cut ");
    }

    #[test]
    fn fine_colours_become_the_nearest_of_sixteen() {
        for (parameters, ink) in [
            ("38;5;9", 9),
            ("38;5;196", 9),
            ("38;5;28", 2),
            ("38;2;10;10;10", 0),
            ("38;2;255;255;255", 15),
            ("38;2;250;200;40", 11),
            ("94", 12),
        ] {
            let mut style = Style::default();
            style.apply(parameters);
            assert_eq!(style.ink, Some(ink), "{parameters}");
        }
    }

    #[test]
    fn an_open_colour_ends_with_the_text() {
        assert_eq!(coloured("\u{1b}[32mgreen"), "\u{1b}[0;32mgreen\u{1b}[0m");
        // Concealed text stays visible.
        assert_eq!(coloured("\u{1b}[8mhidden"), "\u{1b}[0mhidden");
    }

    proptest! {
        #[test]
        fn nothing_but_styles_is_left(text in "[\u{1b}\\[\\];:m0-9a-z\u{7}\\\\ \n\r]{0,60}") {
            prop_assert!(!plain(&text).contains(ESCAPE));
            for rest in coloured(&text).split(ESCAPE).skip(1) {
                let end = rest.find('m').expect("a sequence ends");
                let style = rest[1..end].chars().all(|c| c.is_ascii_digit() || c == ';');
                prop_assert!(rest.starts_with('[') && style);
            }
            prop_assert!(!markup(&text).into_string().contains(ESCAPE));
        }
    }
}
