//! The state of the screen of `kiln rollout watch`, and how keys change it. No I/O and no clock.

use std::time::Duration;

use kiln_web::json::{RolloutSaid, RolloutShown};

/// Characters of a reason that can be typed.
const MAX_REASON: usize = 500;

/// A key, as far as the screen knows any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Char(char),
    Enter,
    Escape,
    Back,
    /// Ctrl-C, or the end of what is typed.
    Interrupt,
}

/// The effect of a key beyond the screen itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    Nothing,
    /// The person leaves the screen; the rollout goes on.
    Leave,
    Say {
        what: RolloutSaid,
        reason: String,
    },
}

/// The person's part in the screen at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    Watching,
    /// The person types a reason for what they are about to say.
    Reason {
        what: RolloutSaid,
        text: String,
    },
    /// The person is asked whether everything is really to be reverted.
    Confirm {
        reason: String,
    },
}

#[derive(Debug, Clone)]
pub struct Screen {
    pub shown: RolloutShown,
    /// How long ago the server answered with `shown`.
    pub age: Duration,
    /// Why the server does not answer; `None`: it does.
    pub silent: Option<String>,
    pub mode: Mode,
    /// The result of the last key that was pressed; `None`: there is nothing to say of it.
    pub note: Option<String>,
}

impl Screen {
    pub fn new(shown: RolloutShown) -> Self {
        Self { shown, age: Duration::ZERO, silent: None, mode: Mode::Watching, note: None }
    }

    /// Takes in what the server answered.
    pub fn take(&mut self, shown: RolloutShown) {
        (self.shown, self.age, self.silent) = (shown, Duration::ZERO, None);
    }

    /// Whether anything is still to be decided about the release.
    pub fn is_forward(&self) -> bool {
        let phase = self.shown.rollout.phase.as_str();
        !self.shown.rollout.ended && phase != "rolling_back"
    }

    pub fn press(&mut self, key: Key) -> Act {
        if key == Key::Interrupt {
            return Act::Leave;
        }
        self.note = None;
        match std::mem::replace(&mut self.mode, Mode::Watching) {
            Mode::Watching => self.watching(key),
            Mode::Reason { what, text } => self.reason(key, what, text),
            Mode::Confirm { reason } => self.confirm(key, reason),
        }
    }

    fn watching(&mut self, key: Key) -> Act {
        let Key::Char(key) = key else { return Act::Nothing };
        let (what, hinders) = match key.to_ascii_lowercase() {
            'q' => return Act::Leave,
            'p' => (RolloutSaid::Pause, self.is_paused().then_some("it is paused already")),
            'r' => (RolloutSaid::Resume, (!self.is_paused()).then_some("it is not paused")),
            'g' => (RolloutSaid::Promote, (!self.is_at_gate()).then_some("it waits at no gate")),
            'a' => (RolloutSaid::Abort, None),
            _ => return Act::Nothing,
        };
        let over = (!self.is_forward()).then_some("it is reverted or over already");
        match over.or(hinders) {
            Some(why) => self.note = Some(why.to_owned()),
            None => self.mode = Mode::Reason { what, text: String::new() },
        }
        Act::Nothing
    }

    fn is_paused(&self) -> bool {
        self.shown.rollout.paused
    }

    pub fn is_at_gate(&self) -> bool {
        self.shown.rollout.phase == "gate"
    }

    fn reason(&mut self, key: Key, what: RolloutSaid, mut text: String) -> Act {
        match key {
            Key::Char(typed) => {
                if !typed.is_control() && text.chars().count() < MAX_REASON {
                    text.push(typed);
                }
            }
            Key::Back => drop(text.pop()),
            Key::Enter if text.trim().is_empty() => {
                self.note = Some("say why: it is kept, and in the audit log".to_owned());
            }
            Key::Enter if what == RolloutSaid::Abort => {
                self.mode = Mode::Confirm { reason: text };
                return Act::Nothing;
            }
            Key::Enter => return Act::Say { what, reason: text },
            Key::Escape | Key::Interrupt => {
                self.note = Some("nothing was said".to_owned());
                return Act::Nothing;
            }
        }
        self.mode = Mode::Reason { what, text };
        Act::Nothing
    }

    fn confirm(&mut self, key: Key, reason: String) -> Act {
        if matches!(key, Key::Char('y' | 'Y')) {
            return Act::Say { what: RolloutSaid::Abort, reason };
        }
        self.note = Some("nothing was said: it goes on".to_owned());
        Act::Nothing
    }
}
