//! Which outputs a command declares, and where.

use std::collections::BTreeSet;

use kiln_cas::tree::check_output_path;
use kiln_protos::reapi;
use kiln_protos::reapi::command::OutputDirectoryFormat;

use crate::failure::Failure;
use crate::outputs::{Expected, OutputKind, OutputSpec};
use crate::paths;
use crate::sandbox::RootFs;

pub(super) fn output_spec(command: &reapi::Command, base: &str) -> Result<OutputSpec, Failure> {
    let mut expected = Vec::new();
    let mut add = |field: &str, declared: &[String], kind| {
        for (index, path) in declared.iter().enumerate() {
            let invalid = |error: &dyn std::fmt::Display| {
                Failure::InvalidAction(format!("command.{field}[{index}] = {path:?}: {error}"))
            };
            // The result will name it as the client does, and such a result is taken by nobody.
            if !path.is_empty() {
                check_output_path(path).map_err(|error| invalid(&error))?;
            }
            let resolved = paths::resolve(base, path).map_err(|error| invalid(&error))?;
            expected.push(Expected { declared: path.clone(), path: resolved, kind });
        }
        Ok::<(), Failure>(())
    };
    if command.output_paths.is_empty() {
        #[allow(deprecated, reason = "Bazel up to version 6 sends these fields only")]
        let (files, directories) = (&command.output_files, &command.output_directories);
        add("output_files", files, OutputKind::File)?;
        add("output_directories", directories, OutputKind::Directory)?;
    } else {
        add("output_paths", &command.output_paths, OutputKind::Any)?;
    }
    expected.sort_by(|a, b| a.declared.cmp(&b.declared));
    expected.dedup_by(|again, first| {
        let same = again.declared == first.declared;
        // As file and as directory: how Buck2 asks for either, where it is told to send the old
        // fields.
        if same && again.kind != first.kind {
            first.kind = OutputKind::Any;
        }
        same
    });
    let format = OutputDirectoryFormat::try_from(command.output_directory_format)
        .unwrap_or(OutputDirectoryFormat::TreeOnly);
    Ok(OutputSpec { expected, directories_apart: format != OutputDirectoryFormat::TreeOnly })
}

/// Parents of all outputs. Of `output_directories` the directory itself too: that is what
/// clients which still send this field expect, whatever the specification says.
pub(super) fn directories(working_directory: &str, outputs: &OutputSpec) -> Vec<String> {
    let mut all: BTreeSet<&str> = BTreeSet::from([working_directory]);
    for output in &outputs.expected {
        all.insert(paths::split(&output.path).0);
        if output.kind == OutputKind::Directory {
            all.insert(&output.path);
        }
    }
    all.into_iter().filter(|path| !path.is_empty()).map(str::to_owned).collect()
}

/// The paths in which the action may change inputs in place. There are none unless the input root
/// is `/`: an output that is among the inputs is a place to build in there, as BuildStream's
/// sources are. The whole root is not copied for that.
pub(super) fn writable(root: &RootFs, outputs: &OutputSpec) -> Vec<String> {
    if *root != RootFs::Inputs {
        return Vec::new();
    }
    let outputs = outputs.expected.iter().filter(|output| output.kind != OutputKind::File);
    outputs.map(|output| output.path.clone()).filter(|path| !path.is_empty()).collect()
}
