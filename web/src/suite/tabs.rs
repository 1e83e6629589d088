//! The pages of tests, beside each other.

use maud::{Markup, html};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tab {
    List,
    Grid,
    Flakes,
    Quarantine,
    Figures,
}

const TABS: [(Tab, &str, &str); 5] = [
    (Tab::List, "/tests", "All tests"),
    (Tab::Grid, "/tests/grid", "Grid"),
    (Tab::Flakes, "/tests/flakes", "Flaky"),
    (Tab::Quarantine, "/tests/quarantine", "Quarantine"),
    (Tab::Figures, "/tests/kpi", "Figures"),
];

/// `None`: a page of one test.
pub fn tabs(here: Option<Tab>) -> Markup {
    html! {
        nav.tabs aria-label="Tests" {
            @for (tab, href, name) in TABS {
                a href=(href) aria-current=[(here == Some(tab)).then_some("page")] { (name) }
            }
        }
    }
}
