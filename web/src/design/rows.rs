//! Tables whose rows become blocks of named values where there is no room for columns.
//!
//! Roles are written out: browsers forget that something is a table when its cells are laid out otherwise.

use maud::{Markup, html};

/// The head of a column, and the class of its cells: `num`, `wide`, `many`, `bar` or none.
#[derive(Clone, Copy)]
pub struct Column(pub &'static str, pub &'static str);

/// A cell for each column, and what belongs to them over the whole width.
pub struct Line {
    pub cells: Vec<Markup>,
    pub below: Option<Markup>,
}

impl From<Vec<Markup>> for Line {
    fn from(cells: Vec<Markup>) -> Self {
        Self { cells, below: None }
    }
}

/// `label`: what the table is of, for whoever does not see it.
pub fn table(label: &str, columns: &[Column], lines: impl IntoIterator<Item = Line>) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(label) {
            table.rows.stack role="table" aria-label=(label) {
                thead role="rowgroup" { tr role="row" {
                    @for Column(name, class) in columns {
                        th class=[of(class)] scope="col" role="columnheader" { (name) }
                    }
                } }
                tbody role="rowgroup" { @for line in lines { (row(columns, &line)) } }
            }
        }
    }
}

fn row(columns: &[Column], line: &Line) -> Markup {
    html! {
        tr role="row" {
            @for (Column(name, class), cell) in columns.iter().zip(&line.cells) {
                td class=[of(class)] role="cell" data-label=(name) { div { (cell) } }
            }
        }
        @if let Some(below) = &line.below {
            tr.output role="row" { td colspan=(columns.len()) role="cell" { div { (below) } } }
        }
    }
}

fn of(class: &'static str) -> Option<&'static str> {
    (!class.is_empty()).then_some(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cell_is_named_and_has_its_class() {
        let columns = [Column("Test", "wide"), Column("Runs", "num")];
        let below = Some(html! { "why" });
        let line = Line { cells: vec![html! { "//a:t" }, html! { "7" }], below };
        let shown = table("Tests", &columns, [line]).into_string();
        for part in [
            "<th class=\"num\" scope=\"col\" role=\"columnheader\">Runs</th>",
            "<td class=\"wide\" role=\"cell\" data-label=\"Test\"><div>//a:t</div></td>",
            "<td class=\"num\" role=\"cell\" data-label=\"Runs\"><div>7</div></td>",
            "<td colspan=\"2\" role=\"cell\"><div>why</div></td>",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
}
