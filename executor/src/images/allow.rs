//! Which images the operator allows.

use std::path::PathBuf;

use super::reference::{
    ImageReference, ImageSource, check_host, check_repository, is_host, layout_path,
};

/// The rules that say which images actions may name; an empty list allows none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowList(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    AnyRegistry,
    /// Images in this repository and beneath it; an empty `repository` stands for all of the
    /// registry's.
    Registry {
        host: String,
        repository: String,
    },
    /// OCI image layouts in this directory of the machine and beneath it.
    Layouts(PathBuf),
}

impl AllowList {
    /// Reads rules, each of which is `*`, `HOST` or `HOST/REPOSITORY` with or without `docker://`, or
    /// `oci:/DIRECTORY`. A rule allows what lies beneath what it names, too.
    pub fn new(entries: &[String]) -> Result<Self, String> {
        let rule = |entry: &String| {
            rule(entry).map_err(|problem| {
                format!(
                    "{entry:?}: {problem}; write a registry (registry.example:5000), a repository \
                     (registry.example/team, docker.io/library), a directory of image layouts \
                     (oci:/srv/images) or * for every registry"
                )
            })
        };
        entries.iter().map(rule).collect::<Result<_, _>>().map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn allows(&self, image: &ImageReference) -> bool {
        self.0.iter().any(|rule| rule.allows(&image.source))
    }

    /// The registries that the rules name: `HOST` or `HOST:PORT`.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|rule| match rule {
            Rule::Registry { host, .. } => Some(host.as_str()),
            Rule::AnyRegistry | Rule::Layouts(_) => None,
        })
    }
}

fn rule(entry: &str) -> Result<Rule, &'static str> {
    if entry == "*" {
        return Ok(Rule::AnyRegistry);
    }
    if let Some(path) = entry.strip_prefix("oci:") {
        return layout_path(path).map(Rule::Layouts).map_err(|error| error.0);
    }
    let name = entry.strip_prefix("docker://").unwrap_or(entry).trim_end_matches('/');
    let (host, repository) = name.split_once('/').unwrap_or((name, ""));
    if !is_host(host) {
        return Err("its first part is no registry");
    }
    let host = check_host(host).map_err(|error| error.0)?;
    if !repository.is_empty() {
        check_repository(repository).map_err(|error| error.0)?;
    }
    Ok(Rule::Registry { host, repository: repository.to_owned() })
}

impl Rule {
    fn allows(&self, source: &ImageSource) -> bool {
        match (self, source) {
            (Self::AnyRegistry, ImageSource::Registry { .. }) => true,
            (
                Self::Registry { host, repository },
                ImageSource::Registry { host: named, repository: path },
            ) => {
                let beneath = path
                    .strip_prefix(repository.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                host == named && (repository.is_empty() || beneath)
            }
            (Self::Layouts(directory), ImageSource::Layout(path)) => path.starts_with(directory),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(entry: &str, image: &str) -> bool {
        let image = format!("{image}@sha256:{}", "a".repeat(64)).parse().unwrap();
        AllowList::new(&[entry.to_owned()]).unwrap().allows(&image)
    }

    #[test]
    fn what_is_named_and_what_is_beneath_it() {
        assert!(allows("registry.example", "registry.example/a/b"));
        assert!(allows("docker://registry.example/", "registry.example/a"));
        assert!(!allows("registry.example", "registry.example:5000/a"));
        assert!(!allows("registry.example", "registry.example.org/a"));
        assert!(allows("registry.example/team", "registry.example/team"));
        assert!(allows("registry.example/team", "registry.example/team/a"));
        assert!(!allows("registry.example/team", "registry.example/team2"));
        assert!(allows("docker.io/library", "ubuntu"));
        assert!(allows("*", "anything.example/a"));
        assert!(!allows("*", "oci:/srv/images"));
        assert!(allows("oci:/srv/images", "oci:/srv/images/base"));
        assert!(!allows("oci:/srv/images", "oci:/srv/images2"));
        assert!(!allows("oci:/srv", "registry.example/srv"));
        assert!(
            !AllowList::default().allows(&format!("a@sha256:{}", "a".repeat(64)).parse().unwrap())
        );
    }

    #[test]
    fn a_bad_entry_is_named() {
        for bad in ["", "ubuntu", "oci:here", "registry.example/Team", "http://registry.example"] {
            let error = AllowList::new(&[bad.to_owned()]).unwrap_err();
            assert!(error.contains(&format!("{bad:?}")) && error.contains("write"), "{error}");
        }
    }
}
