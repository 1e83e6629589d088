//! The terminal while the screen is on it: given back however that ends, and what is typed meanwhile.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use super::draw::draw;
use super::looks::Looks;
use super::state::{Key, Screen};

/// Milliseconds that the reader of keys waits before it looks whether it is to end, and whether the size is another one.
const PATIENCE: u8 = 100;
/// How long the thread that reads keys may take to end. Where the terminal goes away while it
/// reads, it never ends: it reads an end of file, over and over.
const LAST_KEY: Duration = Duration::from_secs(1);
/// Keys that wait to be taken in.
const MAX_WAITING: usize = 64;

/// The screen on a terminal. Whoever drops it, also by a panic, gives the terminal back.
pub struct Shown(DefaultTerminal);

impl Shown {
    pub fn enter() -> io::Result<Self> {
        // It also sees to panics: their message comes to the terminal as it was.
        ratatui::try_init().map(Self).inspect_err(|_| {
            let _ = ratatui::try_restore();
        })
    }

    pub fn draw(&mut self, screen: &Screen, looks: Looks) -> io::Result<()> {
        self.0.draw(|frame| draw(frame, screen, looks)).map(drop)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        // A terminal that is gone cannot be given back.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// An event of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typed {
    Key(Key),
    /// The terminal has got another size.
    Resized,
}

/// Reads keys on a thread of its own, which has ended when this is dropped: the next key is the shell's. On a terminal that is
/// gone there is no next key, and the thread ends with the process.
pub struct Keys {
    typed: mpsc::Receiver<Typed>,
    stop: Arc<AtomicBool>,
    /// A channel on which nothing is ever sent: it closes when the thread ends.
    ended: Receiver<()>,
}

impl Keys {
    pub fn read() -> Self {
        let (sender, typed) = mpsc::channel(MAX_WAITING);
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let (ends, ended) = sync_channel(0);
        std::thread::spawn(move || {
            let _ends = ends;
            while !until.load(Ordering::Relaxed) {
                match next() {
                    Ok(None) => {}
                    Ok(Some(typed)) if sender.blocking_send(typed).is_ok() => {}
                    // The screen or the terminal is gone.
                    Ok(Some(_)) | Err(_) => return,
                }
            }
        });
        Self { typed, stop, ended }
    }

    /// Waits for the next event; `None`: the terminal is gone.
    pub async fn next(&mut self) -> Option<Typed> {
        self.typed.recv().await
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.typed.close();
        // That it is closed is what is waited for.
        let _ = self.ended.recv_timeout(LAST_KEY);
    }
}

fn next() -> io::Result<Option<Typed>> {
    if is_gone(io::stdin())? {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if !event::poll(Duration::ZERO)? {
        return Ok(None);
    }
    Ok(match event::read()? {
        Event::Resize(..) => Some(Typed::Resized),
        Event::Key(key) => meant(key).map(Typed::Key),
        _ => None,
    })
}

/// Waits for something to be typed, and says whether the terminal is gone: of that the library that reads keys would
/// never hear the end.
fn is_gone(terminal: impl AsFd) -> io::Result<bool> {
    let mut asked = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)];
    match poll(&mut asked, PollTimeout::from(PATIENCE)) {
        Ok(_) => {}
        // The window has another size, say.
        Err(Errno::EINTR) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    Ok(asked.iter().any(|it| it.revents().is_some_and(|it| it.intersects(gone))))
}

fn meant(key: KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c' | 'd') if control => Some(Key::Interrupt),
        KeyCode::Char(_) if control => None,
        KeyCode::Char(typed) => Some(Key::Char(typed)),
        KeyCode::Enter => Some(Key::Enter),
        KeyCode::Esc => Some(Key::Escape),
        KeyCode::Backspace => Some(Key::Back),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_that_is_gone_is_noticed() {
        let (reader, writer) = io::pipe().unwrap();
        assert!(!is_gone(&reader).unwrap());
        drop(writer);
        assert!(is_gone(&reader).unwrap());
    }

    #[test]
    fn control_keys_are_not_typed_into_a_reason() {
        let key = |code, modifiers| meant(KeyEvent::new(code, modifiers));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Interrupt));
        assert_eq!(key(KeyCode::Char('x'), KeyModifiers::CONTROL), None);
        assert_eq!(key(KeyCode::Char('Q'), KeyModifiers::SHIFT), Some(Key::Char('Q')));
        assert_eq!(key(KeyCode::F(1), KeyModifiers::NONE), None);
    }
}
