//! `kiln rollout watch` on a terminal: all of a rollout on one screen that follows it, with keys that say something to it.
//! What is shown is a pure function of a state (`draw.rs`), and so is what keys do to that (`state.rs`).

mod draw;
mod looks;
mod measured;
mod sections;
mod state;
mod terminal;
#[cfg(test)]
mod tests;
mod words;

use std::io::{self, IsTerminal};
use std::pin::Pin;
use std::time::{Duration, Instant};

use kiln_web::json::{RolloutSaid, RolloutSay, RolloutShown};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::looks::Looks;
use self::state::{Act, Screen};
use self::terminal::{Keys, Shown, Typed};
use super::show::{self, exit};
use crate::cli::api::{self, Api, plain};
use crate::cli::error::{CliError, Exit};
use crate::cli::text;

/// How often the server is asked, with a screen or without.
pub const PACE: Duration = Duration::from_secs(1);
/// A server that does not answer for so long leaves its times to be drawn by this clock.
const UNHEARD: Duration = Duration::from_millis(1_500);
/// How often a server that does not answer is asked again, one after the other.
pub const MAX_SILENT: u32 = 120;
/// How long it is waited, when the screen is left, for the answer to what was said last.
const LAST_ANSWER: Duration = Duration::from_secs(5);
/// The number that shells add to that of the signal which ended a program, for its exit code.
const BY_SIGNAL: u8 = 128;

/// Whether a person sits at a terminal that can show it.
pub fn is_possible() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
    !is_dumb && io::stdin().is_terminal() && io::stdout().is_terminal()
}

fn looks() -> Looks {
    // As the C library does it: the first that is not empty counts.
    let locale =
        ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(|name| std::env::var(name).ok());
    let locale = locale.into_iter().find(|it| !it.is_empty()).unwrap_or_default().to_lowercase();
    let unicode = locale.contains("utf-8") || locale.contains("utf8");
    Looks { colours: text::has_colours(), unicode }
}

/// How the screen came to an end.
enum Left {
    /// The person left the screen, or the rollout has ended.
    Done(Box<RolloutShown>),
    Signal(u8),
}

/// Follows a rollout until it ends or the person leaves; then the terminal says how it stands.
pub async fn watch(api: &Api, id: &str) -> Result<Exit, CliError> {
    // One answer of the judge is shown, of the many that there may be.
    let path = format!("/rollouts/{}?looks=1", plain(id));
    let first: RolloutShown = api::read(api.get(&path).await?)?;
    let left = match first.rollout.ended {
        true => Left::Done(Box::new(first)),
        false => Box::pin(followed(api, &path, first)).await?,
    };
    match left {
        Left::Signal(number) => Ok(Exit::Code(BY_SIGNAL.saturating_add(number))),
        Left::Done(shown) => {
            text::print(&show::text(&shown))?;
            if !shown.rollout.ended {
                text::print(&format!("it goes on: kiln rollout watch {}\n", shown.rollout.id))?;
            }
            Ok(exit(&shown))
        }
    }
}

type RolloutAnswer<'a> = Pin<Box<dyn Future<Output = Result<RolloutShown, CliError>> + 'a>>;

async fn look(api: &Api, path: &str) -> Result<RolloutShown, CliError> {
    tokio::time::sleep(PACE).await;
    api::read(api.get(path).await?)
}

async fn say(
    api: &Api,
    id: String,
    what: RolloutSaid,
    reason: String,
) -> Result<RolloutShown, CliError> {
    api::read(api.post("/rollouts/say", &RolloutSay { id, what, reason }).await?)
}

/// Waits for the answer to what was said; for ever, where nothing was.
async fn answered(saying: &mut Option<RolloutAnswer<'_>>) -> Result<RolloutShown, CliError> {
    match saying {
        Some(answer) => answer.await,
        None => std::future::pending().await,
    }
}

async fn followed(api: &Api, path: &str, first: RolloutShown) -> Result<Left, CliError> {
    let failed =
        |error: io::Error| CliError::machine(format!("cannot draw on this terminal: {error}"));
    let mut ends = Ends::new()?;
    let mut shown = Shown::enter().map_err(failed)?;
    let mut keys = Keys::read();
    let (looks, mut screen) = (looks(), Screen::new(first));
    let (mut read, mut silent) = (Instant::now(), 0);
    let mut asked: RolloutAnswer<'_> = Box::pin(look(api, path));
    let mut saying: Option<RolloutAnswer<'_>> = None;
    loop {
        screen.age = read.elapsed();
        shown.draw(&screen, looks).map_err(failed)?;
        tokio::select! {
            () = tokio::time::sleep(UNHEARD) => {}
            number = ends.next() => return Ok(Left::Signal(number)),
            answer = &mut asked => {
                match answer {
                    Ok(answer) => {
                        (read, silent) = (Instant::now(), 0);
                        screen.take(answer);
                    }
                    Err(error) if error.passing && silent < MAX_SILENT => {
                        silent += 1;
                        screen.silent = Some(error.message);
                    }
                    Err(error) => return Err(error),
                }
                asked = Box::pin(look(api, path));
            }
            answer = answered(&mut saying), if saying.is_some() => {
                saying = None;
                match answer {
                    Ok(answer) => {
                        (read, silent) = (Instant::now(), 0);
                        screen.take(answer);
                        screen.note = Some("said".to_owned());
                    }
                    Err(error) => screen.note = Some(error.message),
                }
            }
            typed = keys.next() => match typed {
                Some(Typed::Resized) => {}
                // The terminal is gone: nobody looks any more.
                None => break,
                Some(Typed::Key(key)) => match screen.press(key) {
                    Act::Nothing => {}
                    Act::Leave => break,
                    Act::Say { .. } if saying.is_some() => {
                        screen.note = Some("what was said before is not answered yet".to_owned());
                    }
                    Act::Say { what, reason } => {
                        let id = screen.shown.rollout.id.clone();
                        saying = Some(Box::pin(say(api, id, what, reason)));
                    }
                },
            }
        }
        if screen.shown.rollout.ended {
            break;
        }
    }
    if let Some(answer) = saying
        && let Ok(Ok(answer)) = tokio::time::timeout(LAST_ANSWER, answer).await
    {
        screen.take(answer);
    }
    Ok(Left::Done(Box::new(screen.shown)))
}

/// Signals that end the command.
struct Ends([(Signal, u8); 3]);

impl Ends {
    fn new() -> Result<Self, CliError> {
        let of = |kind: SignalKind| match (signal(kind), u8::try_from(kind.as_raw_value())) {
            (Ok(signal), Ok(number)) => Ok((signal, number)),
            (Err(error), _) => Err(CliError::machine(format!("cannot wait for signals: {error}"))),
            (Ok(_), Err(error)) => Err(CliError::machine(error.to_string())),
        };
        Ok(Self([
            of(SignalKind::interrupt())?,
            of(SignalKind::terminate())?,
            of(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) -> u8 {
        let [(first, one), (second, two), (third, three)] = &mut self.0;
        tokio::select! {
            _ = first.recv() => *one,
            _ = second.recv() => *two,
            _ = third.recv() => *three,
        }
    }
}
