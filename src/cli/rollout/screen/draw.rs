//! From what is known to a frame: which sections are beside each other, and which of their lines there is room for.

use kiln_web::format::counted;
use kiln_web::json::RolloutSaid;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::looks::{Looks, Tone};
use super::sections::{self, Section};
use super::state::{Mode, Screen};
use super::words::{clean, lasting, width, wrapped};

/// The width in columns from which measurements stand beside the other sections.
const TWO_COLUMNS: u16 = 110;
/// Columns between the two halves of a wide screen.
const BETWEEN: u16 = 2;
/// The most lines of the foot at the bottom.
const MAX_FOOT: usize = 4;

/// Draws all of it, whatever room there is.
pub fn draw(frame: &mut Frame<'_>, screen: &Screen, looks: Looks) {
    let area = frame.area();
    let columns = usize::from(area.width);
    let mut foot = foot(screen, columns, looks);
    let cut = foot.len().saturating_sub(MAX_FOOT.min(usize::from(area.height)));
    foot.drain(..cut);
    let feet = short(foot.len());
    let head = sections::head(screen, columns, looks);
    let heads = short(head.len()).min(area.height.saturating_sub(feet));
    frame.render_widget(Paragraph::new(head), Rect { height: heads, ..area });
    let body = Rect {
        y: area.y + heads,
        height: area.height.saturating_sub(heads).saturating_sub(feet),
        ..area
    };
    body_of(frame, body, screen, looks);
    let bottom = Rect { y: area.y + area.height.saturating_sub(feet), height: feet, ..area };
    cursor(frame, bottom, screen, &foot);
    frame.render_widget(Paragraph::new(foot), bottom);
}

fn short(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn body_of(frame: &mut Frame<'_>, area: Rect, screen: &Screen, looks: Looks) {
    let it = &screen.shown;
    let beside = area.width >= TWO_COLUMNS;
    let left_width = if beside { (area.width - BETWEEN) / 2 } else { area.width };
    let columns = usize::from(left_width);
    let steps = sections::steps(it, columns, looks);
    let cohorts = sections::cohorts(it, columns, looks);
    let events = sections::events(it, (columns, usize::from(area.height)), looks);
    let left = Rect { width: left_width, ..area };
    if !beside {
        let verdict = sections::verdict(it, columns, looks);
        let metrics = sections::metrics(it, columns, looks);
        column(frame, left, vec![steps, verdict, metrics, cohorts, events], looks);
        return;
    }
    let right_width = area.width - left_width - BETWEEN;
    let right = Rect { x: area.x + left_width + BETWEEN, width: right_width, ..area };
    let columns = usize::from(right_width);
    let verdict = sections::verdict(it, columns, looks);
    let metrics = sections::metrics(it, columns, looks);
    column(frame, left, vec![steps, cohorts, events], looks);
    column(frame, right, vec![verdict, metrics], looks);
}

fn column(frame: &mut Frame<'_>, area: Rect, sections: Vec<Section>, looks: Looks) {
    let wants: Vec<usize> = sections.iter().map(|it| it.lines.len()).collect();
    let rooms = shared(usize::from(area.height), &wants);
    let mut lines = Vec::new();
    for (section, room) in sections.into_iter().zip(rooms) {
        lines.extend(fitted(section, room, usize::from(area.width), looks));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// Who gets how many lines, a heading among them. Each first gets its heading and one line, in their order, as long as
/// there are any; then what is left goes to them in their order.
fn shared(height: usize, wants: &[usize]) -> Vec<usize> {
    const LEAST: usize = 2;
    let mut left = height;
    let mut rooms: Vec<usize> = wants
        .iter()
        .map(|want| {
            let room = if *want > 0 && left >= LEAST { LEAST } else { 0 };
            left -= room;
            room
        })
        .collect();
    for (room, want) in rooms.iter_mut().zip(wants).filter(|(room, _)| **room > 0) {
        let more = (want + 1).saturating_sub(*room).min(left);
        *room += more;
        left -= more;
    }
    rooms
}

/// As many lines of a section as fit, those around the one that has to be seen.
fn fitted(section: Section, room: usize, columns: usize, looks: Looks) -> Vec<Line<'static>> {
    let Some(room) = room.checked_sub(1).filter(|room| *room > 0) else { return Vec::new() };
    let all = section.lines.len();
    let first = section.focus.saturating_sub(1).min(all.saturating_sub(room));
    // With one line alone it is the one that has to be seen.
    let first = if room == 1 { section.focus.min(all.saturating_sub(1)) } else { first };
    let hidden = all.saturating_sub(room);
    let more = if hidden > 0 { format!(" ({hidden} more) ") } else { " ".to_owned() };
    let title = format!("{} {}{more}", looks.rule(), section.title);
    let rest = looks.rule().repeat(columns.saturating_sub(width(&title)));
    let heading = Line::styled(title + &rest, looks.style(Tone::Dim));
    std::iter::once(heading).chain(section.lines.into_iter().skip(first).take(room)).collect()
}

/// The lines at the bottom: how long the server has not answered, the result of the last key, and
/// the keys that the person can press, the reason that they type or the question that they are
/// asked.
fn foot(screen: &Screen, columns: usize, looks: Looks) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let mut say = |text: &str, tone: Tone| {
        let text = wrapped(text, columns, 0).into_iter();
        lines.extend(text.map(|line| Line::styled(line, looks.style(tone))));
    };
    if let Some(why) = &screen.silent {
        let age = lasting(i64::try_from(screen.age.as_secs()).unwrap_or(i64::MAX));
        say(&format!("no answer for {age}: {}", clean(why)), Tone::Bad);
    }
    if let Some(note) = &screen.note {
        say(&clean(note), Tone::Busy);
    }
    match &screen.mode {
        Mode::Watching => say(&keys(screen), Tone::Dim),
        Mode::Reason { what, text } => {
            say(&format!("{}: why? (Enter: say it, Esc: do not)", asked(*what)), Tone::Busy);
            lines.push(typed(text, columns));
        }
        Mode::Confirm { .. } => {
            let one = &screen.shown.rollout;
            let to = one.previous.as_deref().unwrap_or("nothing, so that a person is called");
            let targets = counted(one.changed as u64, "target");
            let question = format!("revert {targets} to {}? (y: yes)", clean(to));
            say(&question, Tone::Bad);
        }
    }
    lines
}

fn keys(screen: &Screen) -> String {
    let pause = if screen.shown.rollout.paused { "r resume" } else { "p pause" };
    match (screen.is_forward(), screen.is_at_gate()) {
        (false, _) => "q quit".to_owned(),
        (true, false) => format!("q quit, {pause}, a abort"),
        (true, true) => format!("q quit, g let it in, {pause}, a abort"),
    }
}

fn asked(what: RolloutSaid) -> &'static str {
    match what {
        RolloutSaid::Pause => "pause",
        RolloutSaid::Resume => "resume",
        RolloutSaid::Promote => "let it into the step",
        RolloutSaid::Abort => "abort",
    }
}

/// The end of what was typed, as much as there is room for beside the cursor.
fn typed(text: &str, columns: usize) -> Line<'static> {
    const SIGN: &str = "> ";
    let room = columns.saturating_sub(SIGN.len() + 1);
    let mut end = String::new();
    for one in text.chars().rev() {
        if width(&end) + width(one.encode_utf8(&mut [0; 4])) > room {
            break;
        }
        end.insert(0, one);
    }
    Line::from(vec![Span::raw(SIGN), Span::raw(end)])
}

fn cursor(frame: &mut Frame<'_>, foot: Rect, screen: &Screen, lines: &[Line<'static>]) {
    let (Mode::Reason { .. }, Some(line)) = (&screen.mode, lines.last()) else { return };
    if foot.height > 0 && foot.width > 0 {
        let x = short(line.width()).min(foot.width - 1);
        frame.set_cursor_position((foot.x + x, foot.y + foot.height - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::shared;

    #[test]
    fn room_goes_to_what_matters_first_and_everything_is_named_where_it_can_be() {
        assert_eq!(shared(40, &[3, 2, 0, 100]), [4, 3, 0, 33]);
        assert_eq!(shared(7, &[3, 2, 1]), [3, 2, 2]);
        assert_eq!(shared(5, &[3, 2, 1]), [3, 2, 0]);
        assert_eq!(shared(1, &[3]), [0]);
        assert_eq!(shared(0, &[]), [0; 0]);
    }
}
