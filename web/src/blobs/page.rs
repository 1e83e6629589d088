//! Directories of an input root or of an output, one page each.

use axum::extract::{Path, Query as Arguments, State};
use axum::response::Html;
use kiln_cas::{Digest, DigestFunction};
use kiln_protos::reapi::{self, Directory};
use maud::{Markup, html};
use serde::Deserialize;

use super::tree::{Kind, walk};
use crate::content::{digest, parse_digest};
use crate::design::layout::{self, Place};
use crate::error::WebError;
use crate::format::{abbreviated, bytes, count, counted, encode, path_of, short};
use crate::state::WebState;

/// Entries shown of one directory.
const MAX_ENTRIES: usize = 2000;
/// Longest name shown, in characters.
const MAX_NAME: usize = 255;

#[derive(Deserialize, Default)]
pub struct Options {
    /// `output`: the digest names a `Tree`.
    #[serde(default)]
    kind: String,
}

impl Options {
    fn kind(&self) -> Kind {
        if self.kind == "output" { Kind::Tree } else { Kind::Directory }
    }
}

pub async fn root(
    State(state): State<WebState>,
    Path((function, hash, size)): Path<(String, String, String)>,
    Arguments(options): Arguments<Options>,
) -> Result<Html<String>, WebError> {
    show(&state, &parse_digest(&function, &hash, &size)?, options.kind(), "").await
}

pub async fn below(
    State(state): State<WebState>,
    Path((function, hash, size, path)): Path<(String, String, String, String)>,
    Arguments(options): Arguments<Options>,
) -> Result<Html<String>, WebError> {
    show(&state, &parse_digest(&function, &hash, &size)?, options.kind(), &path).await
}

async fn show(
    state: &WebState,
    root: &Digest,
    kind: Kind,
    path: &str,
) -> Result<Html<String>, WebError> {
    let directory = walk(state, root, kind, path).await?;
    let path = path.trim_matches('/');
    let body = html! {
        div.title {
            h1.path { (crumbs(root, kind, path)) }
            p.dim { (summary(&directory)) }
        }
        section.panel { (listing(&directory, root, kind, path)) }
    };
    let title = if path.is_empty() { "Directory" } else { path };
    Ok(layout::page(Place::Elsewhere, title, state.version, &body))
}

/// The page of a directory.
pub fn link(root: &Digest, kind: Kind, path: &str) -> String {
    let kind = if kind == Kind::Tree { "?kind=output" } else { "" };
    let path = if path.is_empty() { String::new() } else { format!("/{}", encode(path, true)) };
    format!("/cas/tree/{}{path}{kind}", path_of(root))
}

fn crumbs(root: &Digest, kind: Kind, path: &str) -> Markup {
    let names: Vec<_> = path.split('/').filter(|name| !name.is_empty()).collect();
    html! {
        a.mono href=(link(root, kind, "")) { (abbreviated(&root.hex())) }
        @for (i, name) in names.iter().enumerate() {
            span.dim { " / " }
            @if i + 1 == names.len() { (short(name, MAX_NAME)) }
            @else { a href=(link(root, kind, &names[..=i].join("/"))) { (short(name, MAX_NAME)) } }
        }
    }
}

fn summary(directory: &Directory) -> String {
    let size: i64 = directory
        .files
        .iter()
        .filter_map(|file| Some(file.digest.as_ref()?.size_bytes.max(0)))
        .sum();
    let directories = match directory.directories.len() {
        1 => "1 directory".to_owned(),
        more => format!("{} directories", count(more as u64)),
    };
    format!(
        "{directories}, {} of {}, {}",
        counted(directory.files.len() as u64, "file"),
        bytes(size as u64),
        counted(directory.symlinks.len() as u64, "symbolic link")
    )
}

/// Directories first, then links, then files.
pub fn listing(directory: &Directory, root: &Digest, kind: Kind, path: &str) -> Markup {
    let Directory { files, directories, symlinks, .. } = directory;
    let all = files.len() + directories.len() + symlinks.len();
    let join =
        |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
    html! {
        @if all == 0 { p.quiet { "This directory is empty." } }
        div.scroll tabindex="0" role="region" aria-label="Entries" {
            table.rows.files {
                thead { tr { th { "Name" } th.num { "Size" } th { "Digest" } } }
                tbody {
                    @for child in directories.iter().take(MAX_ENTRIES) {
                        tr {
                            td.wide { a.dir href=(link(root, kind, &join(&child.name))) { (short(&child.name, MAX_NAME)) "/" } }
                            td.num.dim { "–" }
                            td.mono.dim { (hash(child.digest.as_ref())) }
                        }
                    }
                    @for link in symlinks.iter().take(MAX_ENTRIES) {
                        tr {
                            td.wide { (short(&link.name, MAX_NAME)) span.dim { " → " (short(&link.target, MAX_NAME)) } }
                            td.num.dim { "link" }
                            td {}
                        }
                    }
                    @for file in files.iter().take(MAX_ENTRIES) { (file_row(file, root.function)) }
                }
            }
        }
        @if all > MAX_ENTRIES { p.note { "At most " (MAX_ENTRIES) " entries of each kind are shown; `kiln cas tree` lists all." } }
    }
}

fn file_row(file: &reapi::FileNode, function: DigestFunction) -> Markup {
    html! {
        tr {
            td.wide {
                (blob_link(&file.name, file.digest.as_ref(), function))
                @if file.is_executable { " " span.tag { "x" } }
            }
            td.num { (size(file.digest.as_ref())) }
            td.mono.dim { (hash(file.digest.as_ref())) }
        }
    }
}

/// Shows a file, or downloads it under its own name.
pub fn blob_link(name: &str, wire: Option<&reapi::Digest>, function: DigestFunction) -> Markup {
    let shown = short(name, MAX_NAME);
    let file = name.rsplit('/').next().unwrap_or(name);
    html! {
        @match digest(wire, function) {
            Some(digest) => a href={ "/blobs/" (path_of(&digest)) "?name=" (encode(&short(file, 100), false)) } { (shown) },
            None => (shown),
        }
    }
}

pub fn size(digest: Option<&reapi::Digest>) -> String {
    digest.map_or_else(String::new, |digest| bytes(u64::try_from(digest.size_bytes).unwrap_or(0)))
}

pub fn hash(digest: Option<&reapi::Digest>) -> String {
    digest.map_or_else(String::new, |digest| short(&digest.hash, 12))
}
