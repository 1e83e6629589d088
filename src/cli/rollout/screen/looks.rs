//! How the screen looks on this terminal: with colours or without, with pictures of Unicode or of ASCII.

use ratatui::style::{Color, Modifier, Style};

/// Signs for a value, from the least to the most.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const PLAIN_LEVELS: [char; 8] = ['_', '.', ',', '-', '~', '+', '*', '#'];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looks {
    pub colours: bool,
    pub unicode: bool,
}

/// The meaning of a part of the screen, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Strong,
    Dim,
    Good,
    Bad,
    Busy,
}

impl Looks {
    /// The style of a tone. Without colours what is bad is told apart all the same.
    pub fn style(self, tone: Tone) -> Style {
        let (colour, modifier) = match tone {
            Tone::Strong => return Style::new().add_modifier(Modifier::BOLD),
            Tone::Dim => return Style::new().add_modifier(Modifier::DIM),
            Tone::Good => (Color::Green, Modifier::BOLD),
            Tone::Bad => (Color::Red, Modifier::REVERSED),
            Tone::Busy => (Color::Cyan, Modifier::BOLD),
        };
        match self.colours {
            true => Style::new().fg(colour),
            false => Style::new().add_modifier(modifier),
        }
    }

    /// The sign for a value; `share` is from 0 (least) to 1 (most).
    pub fn level(self, share: f64) -> char {
        let levels = if self.unicode { LEVELS } else { PLAIN_LEVELS };
        let most = levels.len() - 1;
        let at = (share.clamp(0.0, 1.0) * most as f64).round() as usize;
        levels.get(at).copied().unwrap_or(' ')
    }

    /// The sign of a step and its tone: for one that is done, for the one that is under way, or for
    /// one that is ahead.
    pub fn standing(self, standing: &str) -> (&'static str, Tone) {
        match (standing, self.unicode) {
            ("done", true) => ("✓", Tone::Good),
            ("done", false) => ("x", Tone::Good),
            ("now", true) => ("▶", Tone::Busy),
            ("now", false) => (">", Tone::Busy),
            (_, true) => ("·", Tone::Dim),
            (_, false) => (".", Tone::Dim),
        }
    }

    /// A bar of so many columns, of which `share` (from 0 to 1) is full.
    pub fn bar(self, share: f64, columns: usize) -> String {
        let full = (share.clamp(0.0, 1.0) * columns as f64).round() as usize;
        let (one, other) = if self.unicode { ("█", "░") } else { ("#", "-") };
        one.repeat(full) + &other.repeat(columns.saturating_sub(full))
    }

    pub fn rule(self) -> &'static str {
        if self.unicode { "─" } else { "-" }
    }
}
