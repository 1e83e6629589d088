//! Files that build events name.

use kiln_ci::events::{FileRef, TestRun};
use maud::{Markup, html};

use crate::blobs::present::Present;
use crate::design::text::visible;
use crate::format::{bytes, path_of};

/// Logs of the build tool that are listed.
const MAX_LOGS: usize = 50;
/// Longest name shown, in characters.
const MAX_NAME: usize = 160;

/// The one of a run's files that is called so.
pub fn named<'a>(run: &'a TestRun, name: &str) -> Option<&'a FileRef> {
    run.files.iter().find(|file| file.name == name)
}

/// Downloads what is in this store; of what is elsewhere the name alone is shown, as its address is what a
/// stranger wrote.
pub fn link(file: &FileRef, present: &Present) -> Markup {
    let name = visible(&file.name, MAX_NAME);
    html! {
        @match &file.blob {
            Some(blob) => bdi { (present.link(blob, &name, &file.name)) },
            None => span.dim title="It was not uploaded here." { bdi { (name) } },
        }
    }
}

/// Bazel's profile as a page.
fn profile(file: &FileRef, present: &Present) -> Option<String> {
    let is_it = file.name.ends_with("command.profile.gz");
    let digest = present.digest(file.blob.as_ref().filter(|_| is_it)?)?;
    Some(format!("/profile/{}", path_of(digest)))
}

/// The build tool's own logs.
pub fn logs(logs: &[FileRef], present: &Present) -> Markup {
    html! {
        @if !logs.is_empty() {
            section.panel {
                header { h2 { "Logs of the build tool" } }
                ul.plain { @for file in logs.iter().take(MAX_LOGS) {
                    li { (link(file, present))
                        @if let Some(link) = profile(file, present) { a href=(link) { "waterfall" } }
                        @if let Some(blob) = &file.blob { span.dim { (bytes(blob.size)) } } }
                } }
            }
        }
    }
}
