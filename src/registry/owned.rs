//! Tags that the configuration protects.

use async_trait::async_trait;
use kiln_cas::records::RecordsError;
use kiln_deploy::oci::{Repository, Tag};
use kiln_deploy::registry::Owned;

use crate::auth::pattern::Pattern;

pub struct ProtectedTags(pub Vec<Pattern>);

#[async_trait]
impl Owned for ProtectedTags {
    async fn refusal(
        &self,
        repository: &Repository,
        tag: Option<&Tag>,
    ) -> Result<Option<String>, RecordsError> {
        let Some(tag) = tag else { return Ok(None) };
        let full = format!("{repository}:{tag}");
        let matches = |it: &Pattern| it.matches(tag.as_str()) || it.matches(&full);
        Ok(self
            .0
            .iter()
            .any(matches)
            .then(|| format!("{full} is protected (registry.protected_tags)")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn patterns_are_of_tags_or_of_tags_in_repositories() {
        let patterns = ["v*", "team/*:stable"].map(|it| Pattern::from(it.to_owned()));
        let tags = ProtectedTags(patterns.into());
        let refuses = async |repository: &str, tag: &str| {
            let (repository, tag) = (repository.parse().unwrap(), tag.parse().unwrap());
            tags.refusal(&repository, Some(&tag)).await.unwrap().is_some()
        };
        assert!(refuses("app", "v1").await && refuses("team/app", "stable").await);
        assert!(!refuses("app", "stable").await && !refuses("team/app", "latest").await);
        assert!(tags.refusal(&"app".parse().unwrap(), None).await.unwrap().is_none());
    }
}
