//! What build events name as the outputs of a target: their paths, and their content. Records say the rest: what is a program,
//! what is a link, which directories are empty.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroUsize;

use kiln_cas::Digest;
use lru::LruCache;

use super::error::CatalogError;
use super::files::{MAX_FILES, OutputFile, OutputNode, ToldFile, fits, led_to};
use super::left::Left;
use super::outputs::{Finder, Made};
use crate::executions::RecordId;

/// Records of which what they left stays in memory: the files of a directory are asked for one after the other.
const MAX_READ: NonZeroUsize = NonZeroUsize::new(16).expect("it is not 0");

/// The outputs, while they are found.
#[derive(Default)]
struct Found<'a> {
    files: Vec<OutputFile>,
    nodes: BTreeSet<OutputNode>,
    named: BTreeSet<&'a str>,
}

/// Whether a link may stand where there is a file (`content`, by paths): it leads to the same content. Whoever builds here can
/// have records written that name any invocation, with links of his own.
fn may_stand(node: &OutputNode, content: &HashMap<&str, &Digest>) -> bool {
    let Some(digest) = content.get(node.path.as_str()) else { return true };
    let leads_to = node.target.as_deref().and_then(|it| led_to(&node.path, it));
    leads_to.is_some_and(|it| it != node.path && content.get(it.as_str()) == Some(digest))
}

/// Leaves out links that would take the place of other content.
fn keep_content(nodes: &mut BTreeSet<OutputNode>, files: &[OutputFile]) {
    let content: HashMap<&str, &Digest> =
        files.iter().map(|it| (it.path.as_str(), &it.digest)).collect();
    nodes.retain(|it| may_stand(it, &content));
}

impl Finder<'_> {
    /// Each at its own path, with its own content. `paths`: what is to be there of it, where not all is.
    pub(super) async fn of_told(
        &self,
        told: &[ToldFile],
        paths: &[String],
        made: &[Made],
    ) -> Result<(Vec<OutputFile>, Vec<OutputNode>), CatalogError> {
        let mut own: BTreeMap<String, Vec<&OutputFile>> = BTreeMap::new();
        for file in made.iter().flat_map(|it| &it.left.files) {
            own.entry(file.digest.hex()).or_default().push(file);
        }
        if told.len() > MAX_FILES {
            return Err(CatalogError::TooMany(MAX_FILES));
        }
        let named = told.iter().map(|it| it.path.as_str()).collect();
        let mut found = Found { named, ..Found::default() };
        for it in made {
            found.nodes.extend(it.left.nodes_of(&found.named).cloned());
        }
        let mut read = LruCache::new(MAX_READ);
        for told in told {
            if let Some(target) = &told.link {
                let (path, target) = (told.path.clone(), Some(target.clone()));
                found.nodes.insert(OutputNode { path, target });
                continue;
            }
            let same = own.get(&told.hash).map(Vec::as_slice).unwrap_or_default();
            let at_path = same.iter().find(|it| it.path == told.path).or(same.first());
            let known = match at_path {
                Some(file) => Some((*file).clone()),
                None => self.of_others(told, &mut read, &mut found).await?,
            };
            let is_link = || {
                let first = OutputNode { path: told.path.clone(), target: None };
                found.nodes.range(first..).next().is_some_and(|it| it.path == told.path)
            };
            let is_wanted = paths.is_empty() || paths.iter().any(|it| fits(&told.path, it));
            if known.is_none() && is_wanted && !is_link() {
                return Err(CatalogError::NotStored(told.path.clone()));
            }
            // Many files may have one content: the events say which path is meant.
            found.files.extend(known.map(|it| OutputFile { path: told.path.clone(), ..it }));
        }
        keep_content(&mut found.nodes, &found.files);
        Ok((found.files, found.nodes.into_iter().collect()))
    }

    /// A file that another target made, or a source; `None`: the store does not have it.
    async fn of_others(
        &self,
        told: &ToldFile,
        read: &mut LruCache<RecordId, Left>,
        found: &mut Found<'_>,
    ) -> Result<Option<OutputFile>, CatalogError> {
        for function in kiln_cas::DigestFunction::ALL {
            let Ok(digest) = Digest::from_hex(told.hash.as_bytes(), told.size, function) else {
                continue;
            };
            let mut elsewhere = None;
            for id in self.store.makers(&self.invocation.instance, &digest).await? {
                if !read.contains(&id) {
                    let Some(kept) = self.store.get(id).await? else { continue };
                    let left = Left::read(self.blobs, &kept).await?;
                    found.nodes.extend(left.nodes_of(&found.named).cloned());
                    read.put(id, left);
                }
                let files = read.get(&id).into_iter().flat_map(|it| &it.files);
                for file in files.filter(|it| it.digest == digest) {
                    if file.path == told.path {
                        return Ok(Some(file.clone()));
                    }
                    elsewhere.get_or_insert_with(|| file.clone());
                }
            }
            if elsewhere.is_some() {
                return Ok(elsewhere);
            }
            if self.blobs.find_missing(&[digest]).await?.is_empty() {
                let path = told.path.clone();
                // Nobody here knows whether it is a program: one that is none is not harmed.
                return Ok(Some(OutputFile { path, digest, is_executable: true }));
            }
        }
        Ok(None)
    }
}
