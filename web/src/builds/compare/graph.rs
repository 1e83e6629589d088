//! Actions that ran because others did: what made a changed input stands left of what reads it.

use kiln_protos::events::Execution;
use maud::{Markup, html};

use super::actions::Misses;
use crate::design::chart::num;
use crate::design::text::{action_link, visible};
use crate::format::counted;

/// Actions that are drawn.
const MAX_NODES: usize = 60;
/// The width of a box in units of the picture.
const WIDTH: f64 = 190.0;
const GAP: f64 = 60.0;
const HEIGHT: f64 = 22.0;
const ROW: f64 = 28.0;
/// Characters of a name.
const MAX_NAME: usize = 26;

/// A node's place: its column, and its row in it.
type Place = (usize, usize);

/// Nothing where no action ran because of another one.
pub fn section(misses: &Misses) -> Markup {
    let edges: Vec<_> = misses
        .edges
        .iter()
        .copied()
        .filter(|(from, to)| *from < MAX_NODES && *to < MAX_NODES)
        .collect();
    if edges.is_empty() {
        return html! {};
    }
    let places = places(misses.listed.len().min(MAX_NODES), &edges);
    let columns = places.iter().flatten().map(|(column, _)| column + 1).max().unwrap_or(1);
    let rows = places.iter().flatten().map(|(_, row)| row + 1).max().unwrap_or(1);
    let width = columns as f64 * (WIDTH + GAP) - GAP;
    let height = rows as f64 * ROW;
    let drawn = places.iter().flatten().count() as u64;
    let label = counted(drawn, "action") + ", each right of those that made what changed for it";
    html! {
        h3 { "What ran because of what" }
        div.scroll tabindex="0" role="region" aria-label="What ran because of what" {
            svg.graph viewBox={ "0 0 " (num(width)) " " (num(height)) } width=(num(width)) height=(num(height))
                role="img" aria-label=(label) {
                @for (from, to) in &edges {
                    @if let (Some(Some(from)), Some(Some(to))) = (places.get(*from), places.get(*to)) { (edge(*from, *to)) }
                }
                @for (miss, place) in misses.listed.iter().zip(&places) {
                    @if let Some(place) = place { (node(&miss.entry.execution, *place)) }
                }
            }
        }
    }
}

fn at((column, row): Place) -> (f64, f64) {
    (column as f64 * (WIDTH + GAP), row as f64 * ROW)
}

fn edge(from: Place, to: Place) -> Markup {
    let ((x, y), (to_x, to_y)) = (at(from), at(to));
    let (x, y, to_y) = (x + WIDTH, y + HEIGHT / 2.0, to_y + HEIGHT / 2.0);
    let half = (x + to_x) / 2.0;
    let [x, y, half, to_x, to_y] = [x, y, half, to_x, to_y].map(num);
    let path = format!("M{x} {y} C{half} {y} {half} {to_y} {to_x} {to_y}");
    html! { path d=(path) fill="none" stroke="currentColor" stroke-opacity="0.45" {} }
}

fn node(run: &Execution, place: Place) -> Markup {
    let (x, y) = at(place);
    let name = run.target_id.rsplit(['/', ':']).next().unwrap_or_default();
    let name = visible(&format!("{name} {}", run.mnemonic), MAX_NAME);
    let box_of = html! {
        rect x=(num(x)) y=(num(y)) width=(num(WIDTH)) height=(num(HEIGHT)) rx="3" fill="none" stroke="currentColor" {
            title { (visible(&run.target_id, 200)) " " (visible(&run.mnemonic, 60)) }
        }
        text x=(num(x + 6.0)) y=(num(y + HEIGHT - 7.0)) font-size="12" fill="currentColor" { (name) }
    };
    html! {
        @match action_link(run) {
            Some(link) => a href=(link) { (box_of) },
            None => (box_of),
        }
    }
}

/// Each action that has to do with another one is one column right of the last of those that it ran because of.
fn places(nodes: usize, edges: &[(usize, usize)]) -> Vec<Option<Place>> {
    let mut columns: Vec<Option<usize>> = vec![None; nodes];
    for (from, to) in edges {
        for node in [from, to] {
            if let Some(column) = columns.get_mut(*node) {
                *column = Some(0);
            }
        }
    }
    // Outputs of an action are no inputs of what made its inputs; were they, it would end all the same.
    for _ in 0..nodes {
        let mut moved = false;
        for (from, to) in edges {
            let after = columns.get(*from).copied().flatten().map_or(0, |column| column + 1);
            if let Some(Some(column)) = columns.get_mut(*to)
                && *column < after
                && after < nodes
            {
                *column = after;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    let mut taken = vec![0; nodes];
    let place = |column: Option<usize>| {
        let column = column?;
        let row = taken.get_mut(column)?;
        *row += 1;
        Some((column, *row - 1))
    };
    columns.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_what_changed_stands_right_of_all_who_made_it() {
        let edges = [(0, 1), (1, 2), (0, 2), (4, 2)];
        let places = places(5, &edges);
        assert_eq!(places, [Some((0, 0)), Some((1, 0)), Some((2, 0)), None, Some((0, 1))]);
    }

    #[test]
    fn a_circle_ends() {
        assert_eq!(places(2, &[(0, 1), (1, 0)]).len(), 2);
    }
}
