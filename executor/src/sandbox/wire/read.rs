//! Bytes as messages: what is cut short, too long or unknown is an error.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use super::{Report, Status, Withdrawal, ZygoteConfig};
use crate::sandbox::cgroup::{CgroupSet, Controller, Kind, Version};
use crate::sandbox::conditions::{Condition, Conditions, NotChanged};
use crate::sandbox::{CommandSpec, Limits, RootFs, SandboxError, UpperDir, UserNamespace};

pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&[u8], SandboxError> {
        let (head, rest) =
            self.rest.split_at_checked(count).ok_or(SandboxError::Malformed("it is cut short"))?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn end<T>(&self, value: T) -> Result<T, SandboxError> {
        if self.rest.is_empty() {
            Ok(value)
        } else {
            Err(SandboxError::Malformed("bytes follow its end"))
        }
    }

    pub(super) fn u8(&mut self) -> Result<u8, SandboxError> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u64(&mut self) -> Result<u64, SandboxError> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(bytes))
    }

    pub(super) fn u32(&mut self) -> Result<u32, SandboxError> {
        u32::try_from(self.u64()?).map_err(|_| SandboxError::Malformed("a number is too large"))
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, SandboxError> {
        let length = usize::try_from(self.u64()?)
            .map_err(|_| SandboxError::Malformed("a length is too large"))?;
        Ok(self.take(length)?.to_vec())
    }

    pub(super) fn string(&mut self) -> Result<String, SandboxError> {
        String::from_utf8(self.bytes()?).map_err(|_| SandboxError::Malformed("a text is not UTF-8"))
    }

    pub(super) fn path(&mut self) -> Result<PathBuf, SandboxError> {
        Ok(PathBuf::from(OsString::from_vec(self.bytes()?)))
    }

    pub(super) fn duration(&mut self) -> Result<Duration, SandboxError> {
        Ok(Duration::from_nanos(self.u64()?))
    }

    pub(super) fn list<T>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<T, SandboxError>,
    ) -> Result<Vec<T>, SandboxError> {
        let count = self.u64()?;
        // Each item has at least eight bytes, so a wrong count cannot make the loop long.
        if count > self.rest.len() as u64 {
            return Err(SandboxError::Malformed("a list is longer than its message"));
        }
        (0..count).map(|_| each(self)).collect()
    }

    pub(super) fn option<T>(
        &mut self,
        each: impl FnOnce(&mut Self) -> Result<T, SandboxError>,
    ) -> Result<Option<T>, SandboxError> {
        if self.u64()? == 0 { Ok(None) } else { each(self).map(Some) }
    }

    pub(super) fn report(&mut self) -> Result<Report, SandboxError> {
        let kind = self.u64()?;
        let code = self.u32()?.cast_signed();
        Ok(Report {
            status: if kind == 0 { Status::Exited(code) } else { Status::Signalled(code) },
            user: self.duration()?,
            system: self.duration()?,
            peak_memory_bytes: self.u64()?,
            over_limit: self.option(Self::string)?,
            not_changed: self.list(Self::not_changed)?,
        })
    }

    pub(super) fn withdrawal(&mut self) -> Result<Withdrawal, SandboxError> {
        Ok(Withdrawal {
            still_writing: self.u64()? != 0,
            over_limit: self.option(Self::string)?,
            hampered: self.option(Self::string)?,
            worn: self.u64()? != 0,
        })
    }

    pub(super) fn not_changed(&mut self) -> Result<NotChanged, SandboxError> {
        let one = Conditions::from_bits(self.u64()?);
        let condition = Condition::ALL.into_iter().find(|condition| one.has(*condition));
        let condition = condition.ok_or(SandboxError::Malformed("an unknown condition"))?;
        Ok((condition, self.string()?))
    }

    pub(super) fn spec(&mut self) -> Result<CommandSpec, SandboxError> {
        Ok(CommandSpec {
            arguments: self.list(Self::bytes)?,
            environment: self.list(|input| Ok((input.bytes()?, input.bytes()?)))?,
            working_directory: self.string()?,
            lower: self.list(Self::path)?,
            directories: self.list(Self::string)?,
            writable: self.list(Self::string)?,
            root: match self.u64()? {
                0 => RootFs::Host,
                1 => RootFs::Empty,
                2 => RootFs::Directory(self.path()?),
                _ => RootFs::Inputs,
            },
            network: self.u64()? != 0,
            timeout: self.duration()?,
            limits: Limits {
                memory_bytes: self.option(Self::u64)?,
                processes: self.option(Self::u32)?,
                disk_bytes: self.option(Self::u64)?,
                output_bytes: self.option(Self::u64)?,
                cpu_millis: self.option(Self::u32)?,
            },
            conditions: Conditions::from_bits(self.u64()?),
        })
    }

    pub(super) fn config(&mut self) -> Result<ZygoteConfig, SandboxError> {
        Ok(ZygoteConfig {
            scratch_dir: self.path()?,
            user_namespace: match self.u64()? {
                0 => UserNamespace::Auto,
                1 => UserNamespace::Always,
                _ => UserNamespace::Never,
            },
            outer_id: self.u32()?,
            input_dirs: self.list(Self::path)?,
            image_dirs: self.list(Self::path)?,
            hidden: self.list(Self::path)?,
            upper: if self.u64()? == 0 { UpperDir::Tmpfs } else { UpperDir::Disk },
            open_files: self.u64()?,
            cgroups: CgroupSet {
                controllers: self.list(|input| {
                    Ok(Controller {
                        kind: match input.u64()? {
                            0 => Kind::Memory,
                            1 => Kind::Pids,
                            _ => Kind::Cpu,
                        },
                        version: if input.u64()? == 0 { Version::V1 } else { Version::V2 },
                        dir: input.path()?,
                    })
                })?,
            },
        })
    }
}
