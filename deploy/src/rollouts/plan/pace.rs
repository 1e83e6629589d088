//! How many targets may be down at once.

use crate::toml::{Field, Fields, TableError};

/// Keys of a declaration that are read here.
pub const KNOWN: [&str; 2] = ["unavailable", "stay_up"];
/// Targets that a number may name.
const MOST: u64 = 100_000;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Most {
    Count(usize),
    /// Percent of all targets: the whole number below, and at least one.
    Percent(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pace {
    /// Targets that may be down or switching at once; `None`: as many as a step has.
    pub unavailable: Option<Most>,
    /// Targets that stay up, whatever else is said.
    pub stay_up: usize,
}

/// The error that no target may ever be switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stay_up = {stay_up} of {all} targets leaves none that may be switched")]
pub struct NoneMay {
    pub stay_up: usize,
    pub all: usize,
}

impl Pace {
    /// How many of so many targets may be down at once; `Ok(None)`: nothing is said.
    pub fn allowed(&self, all: usize) -> Result<Option<usize>, NoneMay> {
        if *self == Self::default() {
            return Ok(None);
        }
        let most = match self.unavailable {
            None => all,
            Some(Most::Count(count)) => count,
            // Multiplied first: 10 % of 30 are 3, whatever a tenth is in binary.
            Some(Most::Percent(share)) => (all as f64 * share / 100.0 + 1e-9).floor() as usize,
        };
        let allowed = most.max(1).min(all.saturating_sub(self.stay_up));
        match allowed {
            0 => Err(NoneMay { stay_up: self.stay_up, all }),
            allowed => Ok(Some(allowed)),
        }
    }
}

pub fn read(top: &Fields<'_>) -> Result<Pace, TableError> {
    let stay_up = top.get("stay_up").map_or(Ok(0), |field| field.number(0..=MOST))?;
    Ok(Pace {
        unavailable: top.get("unavailable").map(|field| most(&field)).transpose()?,
        stay_up: usize::try_from(stay_up).unwrap_or(usize::MAX),
    })
}

fn most(field: &Field<'_>) -> Result<Most, TableError> {
    let wrong = || field.error("expected a number of targets from 1 on, or a share as \"25%\"");
    match field.text() {
        Ok(text) => {
            let share = text.strip_suffix('%').and_then(|it| it.trim_end().parse::<f64>().ok());
            let share = share.filter(|it| *it > 0.0 && *it <= 100.0);
            share.map(Most::Percent).ok_or_else(wrong)
        }
        Err(_) => {
            let count = field.number(1..=MOST).map_err(|_| wrong())?;
            Ok(Most::Count(usize::try_from(count).unwrap_or(usize::MAX)))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::toml::document;

    fn of(text: &str) -> Result<Pace, String> {
        document(text, read).map_err(|error| error.to_string())
    }

    #[test]
    fn counts_and_shares_are_read_and_rounded_down() {
        assert_eq!(of("").unwrap().allowed(4), Ok(None));
        for (text, all, allowed) in [
            ("unavailable = 2", 10, 2),
            ("unavailable = \"25%\"", 10, 2),
            ("unavailable = \"10 %\"", 30, 3),
            ("unavailable = \"1%\"", 10, 1),
            ("unavailable = 50", 10, 10),
            ("stay_up = 3", 4, 1),
            ("unavailable = 5\nstay_up = 8", 10, 2),
        ] {
            assert_eq!(of(text).unwrap().allowed(all), Ok(Some(allowed)), "{text}");
        }
        let none = of("stay_up = 4").unwrap().allowed(4).unwrap_err();
        assert!(none.to_string().contains("leaves none"), "{none}");
        for wrong in ["0", "\"0%\"", "\"101%\"", "\"nan%\"", "\"2\"", "1.5", "true", "-1"] {
            let error = of(&format!("unavailable = {wrong}")).unwrap_err();
            assert!(error.contains("unavailable: expected"), "{wrong}: {error}");
        }
    }

    proptest! {
        #[test]
        fn the_floor_always_holds(all in 1usize..1_000, stay_up in 0usize..1_000, count in 1usize..1_000) {
            let pace = Pace { unavailable: Some(Most::Count(count)), stay_up };
            match pace.allowed(all) {
                Ok(allowed) => {
                    let allowed = allowed.unwrap();
                    prop_assert!(allowed >= 1 && allowed <= count && all - allowed.min(all) >= stay_up.min(all - 1));
                }
                Err(_) => prop_assert!(stay_up >= all),
            }
        }
    }
}
