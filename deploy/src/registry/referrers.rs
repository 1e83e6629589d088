//! Referrers: what is about a manifest. Clients ask for them by the manifest's digest.

use crate::oci::{ContentDigest, Descriptor, Document, Index};

/// Referrers of one manifest in one answer.
const MAX_PAGE: usize = 1000;

/// What refers to one manifest, in the order of digests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Referrers {
    entries: Vec<Descriptor>,
}

/// How a document is listed among the referrers of its subject: with its annotations and what kind of artifact it is.
pub fn referrer_of(descriptor: &Descriptor, document: &Document) -> Descriptor {
    let Descriptor { media_type, digest, size, .. } = descriptor;
    let mut entry = Descriptor::new(media_type, digest.clone(), *size);
    entry.artifact_type = document.artifact_type().map(str::to_owned);
    entry.annotations = document.annotations().clone();
    entry
}

impl Referrers {
    /// Referrers out of entries, sorted, each digest once.
    pub fn new(mut entries: Vec<Descriptor>) -> Self {
        entries.sort_by(|one, two| one.digest.cmp(&two.digest));
        entries.dedup_by(|one, two| one.digest == two.digest);
        Self { entries }
    }

    /// An answer: at most `limit` of those of a type behind `last`, and whether there are more.
    pub fn page(
        &self,
        artifact_type: Option<&str>,
        last: Option<&ContentDigest>,
        limit: usize,
    ) -> (Index, bool) {
        let limit = limit.clamp(1, MAX_PAGE);
        let mut fitting = self.entries.iter().filter(|it| {
            artifact_type.is_none_or(|wanted| it.artifact_type.as_deref() == Some(wanted))
                && last.is_none_or(|last| it.digest > *last)
        });
        let page = fitting.by_ref().take(limit).cloned().collect();
        (Index::new(page), fitting.next().is_some())
    }

    pub fn entries(&self) -> &[Descriptor] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{MANIFEST_TYPE, Manifest};

    fn subject(digit: char) -> Descriptor {
        let digest = format!("sha256:{}", digit.to_string().repeat(64)).parse().unwrap();
        Descriptor::new(MANIFEST_TYPE, digest, 1)
    }

    /// An artifact about a subject, with its descriptor.
    fn artifact(kind: &str, about: char) -> (Descriptor, Document) {
        let mut manifest = Manifest::artifact(kind, Vec::new());
        manifest.subject = Some(subject(about));
        manifest.annotations.insert("kind".to_owned(), kind.to_owned());
        let data = manifest.write().unwrap();
        (Descriptor::of(MANIFEST_TYPE, &data), Document::read(MANIFEST_TYPE, &data).unwrap())
    }

    #[test]
    fn a_referrer_is_listed_with_its_kind_and_annotations() {
        let (descriptor, document) = artifact("a/b", '1');
        let listed = referrer_of(&descriptor, &document);
        assert_eq!(listed.artifact_type.as_deref(), Some("a/b"));
        assert_eq!(listed.annotations["kind"], "a/b");
        assert_eq!((listed.digest, listed.size), (descriptor.digest, descriptor.size));
    }

    #[test]
    fn a_manifest_without_a_kind_has_the_one_of_its_configuration() {
        let config = Descriptor::of("config/type", b"{}");
        let data = Manifest::image(config, Vec::new()).write().unwrap();
        let document = Document::read(MANIFEST_TYPE, &data).unwrap();
        let listed = referrer_of(&Descriptor::of(MANIFEST_TYPE, &data), &document);
        assert_eq!(listed.artifact_type.as_deref(), Some("config/type"));
    }

    #[test]
    fn pages_follow_each_other_and_filters_leave_nothing_else() {
        let kinds = ["x/1", "x/2", "x/1", "x/3", "x/1"];
        let entries: Vec<_> = kinds
            .iter()
            .enumerate()
            .map(|(number, kind)| {
                let (mut entry, document) = artifact(kind, '1');
                entry.digest = ContentDigest::of(&[number as u8]);
                referrer_of(&entry, &document)
            })
            .collect();
        let referrers = Referrers::new([entries.clone(), entries].concat());
        assert_eq!(referrers.entries().len(), 5);
        let (mut seen, mut last) = (Vec::new(), None);
        loop {
            let (page, more) = referrers.page(Some("x/1"), last.as_ref(), 2);
            last = page.manifests.last().map(|it| it.digest.clone());
            seen.extend(page.manifests);
            if !more {
                break;
            }
        }
        assert_eq!(seen.len(), 3);
        assert!(seen.iter().all(|it| it.artifact_type.as_deref() == Some("x/1")));
        let (none, more) = referrers.page(Some("other"), None, 2);
        assert!(none.manifests.is_empty() && !more);
    }
}
