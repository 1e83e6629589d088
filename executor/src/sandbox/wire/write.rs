//! Messages as bytes.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::{LENGTH_BYTES, MAX_FRAME, ZygoteConfig};
use crate::sandbox::cgroup::Version;
use crate::sandbox::{CommandSpec, RootFs, SandboxError, UpperDir, UserNamespace};

pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new(kind: u8) -> Self {
        let mut buffer = Vec::with_capacity(256);
        buffer.extend_from_slice(&[0; LENGTH_BYTES]);
        buffer.push(kind);
        Self(buffer)
    }

    pub(super) fn finish(mut self) -> Result<Vec<u8>, SandboxError> {
        let size = self.0.len() - LENGTH_BYTES;
        match u32::try_from(size) {
            Ok(length) if size <= MAX_FRAME => {
                self.0[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
                Ok(self.0)
            }
            _ => Err(SandboxError::CommandTooLarge { size, limit: MAX_FRAME }),
        }
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.u64(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub(super) fn path(&mut self, value: &Path) {
        self.bytes(value.as_os_str().as_bytes());
    }

    pub(super) fn duration(&mut self, value: Duration) {
        self.u64(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.u64(items.len() as u64);
        for item in items {
            each(self, item);
        }
    }

    pub(super) fn option<T>(&mut self, value: Option<T>, each: impl FnOnce(&mut Self, T)) {
        self.u64(u64::from(value.is_some()));
        if let Some(value) = value {
            each(self, value);
        }
    }

    pub(super) fn spec(&mut self, spec: &CommandSpec) {
        self.list(&spec.arguments, |out, argument| out.bytes(argument));
        self.list(&spec.environment, |out, (name, value)| {
            out.bytes(name);
            out.bytes(value);
        });
        self.bytes(spec.working_directory.as_bytes());
        self.list(&spec.lower, |out, path| out.path(path));
        self.list(&spec.directories, |out, path| out.bytes(path.as_bytes()));
        self.list(&spec.writable, |out, path| out.bytes(path.as_bytes()));
        match &spec.root {
            RootFs::Host => self.u64(0),
            RootFs::Empty => self.u64(1),
            RootFs::Directory(path) => {
                self.u64(2);
                self.path(path);
            }
            RootFs::Inputs => self.u64(3),
        }
        self.u64(u64::from(spec.network));
        self.duration(spec.timeout);
        self.option(spec.limits.memory_bytes, Self::u64);
        self.option(spec.limits.processes.map(u64::from), Self::u64);
        self.option(spec.limits.disk_bytes, Self::u64);
        self.option(spec.limits.output_bytes, Self::u64);
        self.option(spec.limits.cpu_millis.map(u64::from), Self::u64);
        self.u64(spec.conditions.bits());
    }

    pub(super) fn config(&mut self, config: &ZygoteConfig) {
        self.path(&config.scratch_dir);
        self.u64(match config.user_namespace {
            UserNamespace::Auto => 0,
            UserNamespace::Always => 1,
            UserNamespace::Never => 2,
        });
        self.u64(u64::from(config.outer_id));
        for paths in [&config.input_dirs, &config.image_dirs, &config.hidden] {
            self.list(paths, |out, path| out.path(path));
        }
        self.u64(u64::from(config.upper == UpperDir::Disk));
        self.u64(config.open_files);
        self.list(&config.cgroups.controllers, |out, controller| {
            out.u64(controller.kind as u64);
            out.u64(u64::from(controller.version == Version::V2));
            out.path(&controller.dir);
        });
    }
}
