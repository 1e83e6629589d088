//! A Directory message, checked once and then trusted.

use kiln_cas::counted;
use kiln_cas::tree::{TreeError, validate_directory};
use kiln_cas::{Digest, DigestError, DigestFunction};
use kiln_protos::reapi;

/// The node property that Bazel gives to a tool's files with `--experimental_remote_mark_tool_inputs`.
const TOOL_MARK: &str = "bazel_tool_input";

/// The entries of a directory: each list is sorted by name, and no name occurs twice in all of
/// them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Directory {
    pub files: Vec<File>,
    pub directories: Vec<Subdirectory>,
    pub symlinks: Vec<Symlink>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct File {
    pub name: Box<str>,
    pub digest: Digest,
    pub executable: bool,
    /// Whether the client has marked the file as one of the tool that the action runs, as Bazel
    /// does.
    pub tool: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Subdirectory {
    pub name: Box<str>,
    pub digest: Digest,
}

/// A symlink among the inputs. Any target is allowed, absolute ones included: it is text, resolved
/// inside the sandbox only.
#[derive(Debug, PartialEq, Eq)]
pub struct Symlink {
    pub name: Box<str>,
    pub target: Box<str>,
}

/// What is wrong with a Directory message, and in which field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    #[error("the blob is not a Directory message: {0}")]
    Undecodable(String),
    #[error(transparent)]
    NotCanonical(#[from] TreeError),
    #[error("a digest: {0}")]
    Digest(#[from] DigestError),
}

impl Directory {
    /// Decodes and checks a Directory message. `function`: that of its own digest, which its
    /// entries share. Of the node properties only the mark of tools is read: every input has a
    /// fixed mode and time.
    pub fn decode(data: &[u8], function: DigestFunction) -> Result<Self, DirectoryError> {
        let message: reapi::Directory = counted::decode(data)
            .map_err(|error| DirectoryError::Undecodable(error.to_string()))?;
        validate_directory(&message)?;
        let digest = |digest: Option<reapi::Digest>| {
            Digest::from_wire(&digest.ok_or(DigestError::Absent)?, function)
        };
        let mut directory = Self::default();
        for node in message.files {
            let (name, executable) = (node.name.into(), node.is_executable);
            let properties = node.node_properties.map(|all| all.properties).unwrap_or_default();
            let tool = properties.iter().any(|property| property.name == TOOL_MARK);
            directory.files.push(File { name, digest: digest(node.digest)?, executable, tool });
        }
        for node in message.directories {
            let name = node.name.into();
            directory.directories.push(Subdirectory { name, digest: digest(node.digest)? });
        }
        for node in message.symlinks {
            let (name, target) = (node.name.into(), node.target.into());
            directory.symlinks.push(Symlink { name, target });
        }
        Ok(directory)
    }

    /// How many entries the directory itself has.
    pub fn entries(&self) -> usize {
        self.files.len() + self.directories.len() + self.symlinks.len()
    }

    /// Roughly how many bytes of memory the directory takes.
    pub fn weight(&self) -> usize {
        let targets: usize = self.symlinks.iter().map(|symlink| symlink.target.len()).sum();
        64 + self.entries() * 96 + targets
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn file(name: &str) -> reapi::FileNode {
        let digest = DigestFunction::Blake3.digest(b"x").to_wire();
        reapi::FileNode { name: name.into(), digest: Some(digest), ..Default::default() }
    }

    fn decode(files: Vec<reapi::FileNode>) -> Result<Directory, DirectoryError> {
        let message = reapi::Directory { files, ..Default::default() };
        Directory::decode(&message.encode_to_vec(), DigestFunction::Blake3)
    }

    #[test]
    fn entries_share_the_digest_function_of_the_directory() {
        let directory = decode(vec![file("a"), file("b")]).unwrap();
        assert_eq!(directory.entries(), 2);
        assert_eq!(directory.files[0].digest, DigestFunction::Blake3.digest(b"x"));
    }

    #[test]
    fn long_targets_weigh_what_they_take() {
        let link = reapi::SymlinkNode {
            name: "link".into(),
            target: "x".repeat(4_000),
            ..Default::default()
        };
        let message = reapi::Directory { symlinks: vec![link], ..Default::default() };
        let directory = Directory::decode(&message.encode_to_vec(), DigestFunction::Sha256);
        assert!(directory.unwrap().weight() > 4_000);
    }

    #[test]
    fn files_of_a_tool_are_marked() {
        let property = |name: &str| reapi::NodeProperty { name: name.into(), value: String::new() };
        let marked = |name: &str, mark: &str| reapi::FileNode {
            node_properties: Some(reapi::NodeProperties {
                properties: vec![property(mark)],
                ..Default::default()
            }),
            ..file(name)
        };
        let directory =
            decode(vec![marked("a", "bazel_tool_input"), marked("b", "other"), file("c")]).unwrap();
        let tools: Vec<_> = directory.files.iter().map(|file| file.tool).collect();
        assert_eq!(tools, [true, false, false]);
    }

    #[test]
    fn what_is_not_canonical_is_refused_and_the_field_is_named() {
        let error = decode(vec![file("a"), file("..")]).unwrap_err().to_string();
        assert!(error.contains("files[1].name"), "{error}");
        let noise = Directory::decode(&[0xff; 9], DigestFunction::Sha256);
        assert!(matches!(noise, Err(DirectoryError::Undecodable(_))));
    }
}
