//! Two sets of targets, of which one serves: the other gets the release, and then the requests.

use crate::toml::{Fields, TableError};

/// Keys of a declaration that are read here.
pub const KNOWN: [&str; 3] = ["colour", "live", "capacity"];

/// How the two are told apart, and how large the idle one has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sets {
    /// The label of targets whose two values are the sets.
    pub colour: String,
    /// The set that serves, where no balancer says so yet.
    pub live: Option<String>,
    /// Percent of the targets that serve: so many of the idle ones have to answer before anything begins.
    pub capacity: u64,
}

/// `None`: nothing tells two sets apart.
pub fn read(top: &Fields<'_>, is_beside: bool) -> Result<Option<Sets>, TableError> {
    for key in KNOWN {
        if let Some(field) = top.get(key).filter(|_| !is_beside) {
            let hint = "is for strategy = \"blue-green\" and by = \"traffic\"";
            return Err(field.error(hint));
        }
    }
    let text = |key: &str| top.get(key).map(|it| it.text().map(str::to_owned)).transpose();
    let Some(colour) = text("colour")? else { return Ok(None) };
    let capacity = top.get("capacity").map_or(Ok(100), |field| field.number(1..=1_000))?;
    Ok(Some(Sets { colour, live: text("live")?, capacity }))
}
