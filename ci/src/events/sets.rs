//! Sets of outputs, which targets name: each has files and other sets.

use std::collections::{HashMap, HashSet};

use kiln_protos::bep::NamedSetOfFiles;

use super::facts::FileRef;
use super::limits::Limits;
use super::wire;
use crate::attempts::name;

#[derive(Clone, Debug, Default)]
struct FileSet {
    files: Vec<FileRef>,
    sets: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub struct FileSets {
    sets: HashMap<String, FileSet>,
    files: usize,
}

impl FileSets {
    /// Says how many files were too many.
    pub fn add(&mut self, id: &str, it: &NamedSetOfFiles, limits: &Limits) -> u64 {
        let room = limits.files.saturating_sub(self.files);
        let files: Vec<_> = it.files.iter().take(room).map(wire::file).collect();
        let left_out = (it.files.len() - files.len()) as u64;
        // A set without files takes up room as well.
        if self.sets.len() < limits.files {
            self.files += files.len();
            let sets = it.file_sets.iter().take(limits.items).map(|it| name(&it.id)).collect();
            self.sets.insert(name(id), FileSet { files, sets });
        }
        left_out
    }

    /// The files of sets and of all that are in them, each set once, at most so many.
    pub fn files(&self, sets: &[String], most: usize) -> Vec<FileRef> {
        let mut files = Vec::new();
        let mut seen = HashSet::new();
        let mut open: Vec<&str> = sets.iter().rev().map(String::as_str).collect();
        while let Some(id) = open.pop() {
            let Some(set) = self.sets.get(id).filter(|_| seen.insert(id)) else { continue };
            files.extend(set.files.iter().take(most - files.len()).cloned());
            if files.len() >= most {
                break;
            }
            open.extend(set.sets.iter().rev().map(String::as_str));
        }
        files
    }
}
