//! What differs between an environment and the one that it stands for. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Entries of one description, and characters of a value.
const MAX_ENTRIES: usize = 5_000;
const MAX_VALUE: usize = 200;
/// Parts of names of configuration whose values are nobody's business.
const PRIVATE: [&str; 6] = ["secret", "token", "password", "passwd", "credential", "key"];

/// An environment as a program describes it: one object in JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Description {
    /// What runs there: for each name its version or its digest.
    pub versions: BTreeMap<String, String>,
    pub configuration: BTreeMap<String, String>,
    /// Names of secrets; their values are never here.
    pub secrets: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    Version,
    Configuration,
    Secret,
}

/// Something that differs between two environments. Of private values it is said only that they differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    pub aspect: Aspect,
    pub name: String,
    /// The value in the environment; `None`: it is not there.
    pub here: Option<String>,
    /// The value in the one that it stands for; `None`: it is not there.
    pub there: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum DescriptionError {
    #[error("it is no description: one object with versions, configuration and secrets, in JSON")]
    Form(#[from] serde_json::Error),
    #[error("it has more than {MAX_ENTRIES} entries")]
    Large,
}

impl Description {
    pub fn read(text: &str) -> Result<Self, DescriptionError> {
        let it: Self = serde_json::from_str(text)?;
        let count = it.versions.len() + it.configuration.len() + it.secrets.len();
        if count > MAX_ENTRIES { Err(DescriptionError::Large) } else { Ok(it) }
    }
}

fn is_private(name: &str) -> bool {
    let name = name.to_lowercase();
    PRIVATE.iter().any(|it| name.contains(it))
}

fn shown(name: &str, value: Option<&String>) -> Option<String> {
    let value = value?;
    Some(match is_private(name) {
        true => "***".to_owned(),
        false => value.chars().take(MAX_VALUE).collect(),
    })
}

fn of_maps(
    aspect: Aspect,
    here: &BTreeMap<String, String>,
    there: &BTreeMap<String, String>,
) -> Vec<Difference> {
    let names: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
    let differ = |name: &&String| here.get(*name) != there.get(*name);
    let difference = |name: &String| Difference {
        aspect,
        name: name.clone(),
        here: shown(name, here.get(name)),
        there: shown(name, there.get(name)),
    };
    names.into_iter().filter(differ).map(difference).collect()
}

/// Everything that differs, in the order of aspects and names.
pub fn differences(here: &Description, there: &Description) -> Vec<Difference> {
    let mut all = of_maps(Aspect::Version, &here.versions, &there.versions);
    all.extend(of_maps(Aspect::Configuration, &here.configuration, &there.configuration));
    let secret = |name: &String| {
        let has = |it: &Description| it.secrets.contains(name).then(|| "***".to_owned());
        Difference {
            aspect: Aspect::Secret,
            name: name.clone(),
            here: has(here),
            there: has(there),
        }
    };
    all.extend(here.secrets.symmetric_difference(&there.secrets).map(secret));
    all
}

impl Difference {
    /// The difference as one line for people.
    pub fn in_words(&self) -> String {
        let what = match self.aspect {
            Aspect::Version => "version of",
            Aspect::Configuration => "configuration",
            Aspect::Secret => "secret",
        };
        let name = &self.name;
        match (&self.here, &self.there, self.aspect) {
            (Some(_), None, Aspect::Secret) => format!("{what} {name}: only here"),
            (None, Some(_), Aspect::Secret) => format!("{what} {name}: only there"),
            (Some(here), None, _) => format!("{what} {name}: {here} here, nothing there"),
            (None, Some(there), _) => format!("{what} {name}: nothing here, {there} there"),
            (Some(here), Some(there), _) if here == there => format!("{what} {name}: differs"),
            (Some(here), Some(there), _) => format!("{what} {name}: {here} here, {there} there"),
            (None, None, _) => format!("{what} {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_differs_is_named_and_what_is_private_is_not_shown() {
        let here = Description::read(
            r#"{"versions": {"web": "sha256:a"}, "configuration": {"replicas": "1", "api_token": "x"}, "secrets": ["db"]}"#,
        )
        .unwrap();
        let there = Description::read(
            r#"{"versions": {"web": "sha256:b", "db": "16"}, "configuration": {"replicas": "1", "api_token": "y"}, "secrets": ["db", "mail"]}"#,
        )
        .unwrap();
        let words: Vec<_> = differences(&here, &there).iter().map(Difference::in_words).collect();
        assert_eq!(
            words,
            [
                "version of db: nothing here, 16 there",
                "version of web: sha256:a here, sha256:b there",
                "configuration api_token: differs",
                "secret mail: only there",
            ]
        );
        assert!(Description::read(r#"{"secret": ["db"]}"#).is_err());
    }

    fn description() -> impl Strategy<Value = Description> {
        let map = || proptest::collection::btree_map("[a-c]", "[x-z]", 0..4);
        (map(), map(), proptest::collection::btree_set("[a-c]", 0..4)).prop_map(
            |(versions, configuration, secrets)| Description { versions, configuration, secrets },
        )
    }

    proptest! {
        #[test]
        fn nothing_differs_from_itself_and_both_ways_differ_alike(a in description(), b in description()) {
            prop_assert!(differences(&a, &a).is_empty());
            let (there, back) = (differences(&a, &b), differences(&b, &a));
            prop_assert_eq!(there.is_empty(), a == b);
            prop_assert_eq!(there.len(), back.len());
            for (there, back) in there.iter().zip(&back) {
                prop_assert_eq!((&there.here, &there.there), (&back.there, &back.here));
            }
        }
    }
}
