//! Lists of tags, in pages.

/// Tags of one answer.
pub const MAX_TAGS_PAGE: usize = 10_000;

/// A part of the tags of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagsPage<'a> {
    pub tags: Vec<&'a str>,
    /// The `last` that asks for the next page; `None`: there is none.
    pub next: Option<&'a str>,
}

/// The tags behind `last`, in the order of their bytes, at most `limit`. `tags` need not be sorted, and `last`
/// need not be one of them: it may have been deleted since.
pub fn page_of_tags<'a>(tags: &'a [String], last: Option<&str>, limit: usize) -> TagsPage<'a> {
    let limit = limit.min(MAX_TAGS_PAGE);
    let behind = |it: &&str| last.is_none_or(|last| *it > last);
    let mut sorted: Vec<&str> = tags.iter().map(String::as_str).filter(behind).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let more = sorted.len() > limit;
    sorted.truncate(limit);
    let next = if more { sorted.last().copied() } else { None };
    TagsPage { tags: sorted, next }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_page_begins_behind_a_tag_that_may_be_gone() {
        let tags: Vec<_> = ["v2", "v1", "latest", "v3"].map(str::to_owned).into();
        let page = page_of_tags(&tags, Some("v1.5"), 10);
        assert_eq!((page.tags, page.next), (vec!["v2", "v3"], None));
        assert!(page_of_tags(&tags, None, 0).tags.is_empty());
    }

    proptest! {
        #[test]
        fn all_pages_together_are_all_tags(tags in prop::collection::vec("[a-c]{1,3}", 0..30), limit in 1usize..7) {
            let (mut all, mut last) = (Vec::new(), None);
            loop {
                let page = page_of_tags(&tags, last, limit);
                all.extend(page.tags);
                last = page.next;
                if last.is_none() { break }
            }
            let mut expected: Vec<&str> = tags.iter().map(String::as_str).collect();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(all, expected);
        }
    }
}
