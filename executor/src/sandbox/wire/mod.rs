//! The messages between a slot and its zygote, and their bytes.
//!
//! A frame is a little-endian u32 length and a body: one message as postcard writes it. Both ends are the
//! same build of Kiln, so the order of fields and variants may change freely.

pub(super) mod octets;

use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::cgroup::CgroupSet;
use super::conditions::NotChanged;
use super::{CommandSpec, SandboxError, UpperDir, UserNamespace};

/// Most bytes of a message, and so of the arguments, environment and paths of one action together.
/// The kernel itself takes 2 to 6 MiB.
pub(super) const MAX_FRAME: usize = 32 << 20;
pub(super) const LENGTH_BYTES: usize = 4;

/// The settings that the zygote needs once, before its first action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ZygoteConfig {
    #[serde(with = "octets::path")]
    pub scratch_dir: PathBuf,
    pub user_namespace: UserNamespace,
    pub outer_id: u32,
    #[serde(with = "octets::list")]
    pub input_dirs: Vec<PathBuf>,
    #[serde(with = "octets::list")]
    pub image_dirs: Vec<PathBuf>,
    #[serde(with = "octets::list")]
    pub hidden: Vec<PathBuf>,
    pub upper: UpperDir,
    pub open_files: u64,
    pub cgroups: CgroupSet,
}

/// What the server asks of the zygote. `Spec` is a reference where a command is sent and owned
/// where one is received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request<Spec> {
    Configure(ZygoteConfig),
    /// Run this action. The message comes with two descriptors: the action's stdout and stderr.
    Run(Spec),
    /// Send SIGTERM to every process of the action.
    Terminate,
    /// Send SIGKILL to every process of the action.
    Kill,
    /// Start a tool that stays for further requests, with the input root of the first. It comes with three
    /// descriptors: its stdin, stdout and stderr.
    StartTool(Spec),
    /// Show the tool that runs this input root from now on.
    Present(Spec),
    /// Take its input root out of the tool's sight.
    Withdraw,
    /// Throw away what the tool wrote for its last request, since that has been read. This has no
    /// reply.
    Release,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    Ready {
        user_namespace: bool,
        not_enforced: Vec<String>,
    },
    /// The action or the tool has ended. For an action this comes with one descriptor, the input
    /// root; for a tool with none.
    Done(Report),
    /// Nothing ran, or its end is unknown: the sandbox is at fault.
    Failed(String),
    /// The zygote has removed what earlier actions left, as far as the next one has to wait for
    /// that. Comes after each end.
    Tidied,
    /// The tool sees its input root, of which this brings a descriptor.
    Presented,
    Withdrawn(Withdrawal),
}

/// A request as the zygote receives it.
pub(super) type Asked = Request<Box<CommandSpec>>;

/// The state in which a tool was when its input root was taken from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawal {
    /// Whether the tool has files of the input root open for writing, or mapped so: what it wrote
    /// may change until it is ended.
    pub still_writing: bool,
    /// A sentence that says that the request wrote as much as it may; `None`: it did not.
    pub over_limit: Option<String>,
    /// Says what the tool ran out of since the request before, maybe for what it has left behind
    /// itself: an action by itself has all that its limits allow. `None`: nothing.
    pub hampered: Option<String>,
    /// Whether the files that the tool keeps from request to request are near their limit.
    pub worn: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    pub status: Status,
    pub user: Duration,
    pub system: Duration,
    pub peak_memory_bytes: u64,
    /// Says which limit the action ran into; `None`: no limit explains its end.
    pub over_limit: Option<String>,
    pub not_changed: Vec<NotChanged>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Status {
    Exited(i32),
    Signalled(i32),
}

/// The frame that carries `message`: its length, then its bytes.
pub(super) fn frame(message: &impl Serialize) -> Result<Vec<u8>, SandboxError> {
    let mut buffer = Vec::with_capacity(256);
    buffer.extend_from_slice(&[0; LENGTH_BYTES]);
    let mut frame = postcard::to_extend(message, buffer)?;
    let size = frame.len() - LENGTH_BYTES;
    match u32::try_from(size) {
        Ok(length) if size <= MAX_FRAME => {
            frame[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
            Ok(frame)
        }
        _ => Err(SandboxError::CommandTooLarge { size, limit: MAX_FRAME }),
    }
}

/// Decodes a message from `body`, all of which it has to take up.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, SandboxError> {
    match postcard::take_from_bytes(body)? {
        (message, []) => Ok(message),
        _ => Err(SandboxError::Malformed("bytes follow its end")),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;
    use crate::sandbox::cgroup::{Controller, Kind, Version};
    use crate::sandbox::{Condition, Limits, RootFs};

    fn spec() -> CommandSpec {
        CommandSpec {
            arguments: vec![b"sh".to_vec(), vec![0xff, 0]],
            environment: vec![(b"A".to_vec(), b"b=c".to_vec())],
            working_directory: "a/b".to_owned(),
            lower: vec!["/x".into()],
            directories: vec!["out".to_owned()],
            writable: vec!["src".to_owned()],
            root: RootFs::Directory("/image".into()),
            network: true,
            timeout: Duration::from_millis(1500),
            limits: Limits { memory_bytes: Some(7), cpu_millis: Some(9), ..Limits::default() },
            conditions: [Condition::Clock, Condition::User].into_iter().collect(),
        }
    }

    fn body(message: &impl Serialize) -> Vec<u8> {
        frame(message).unwrap().split_off(LENGTH_BYTES)
    }

    fn config() -> ZygoteConfig {
        let dir = PathBuf::from(OsString::from_vec(vec![b'/', 0xff]));
        ZygoteConfig {
            scratch_dir: dir.clone(),
            user_namespace: UserNamespace::Never,
            outer_id: u32::MAX,
            input_dirs: vec![dir.clone()],
            image_dirs: Vec::new(),
            hidden: vec!["/root".into(), dir.clone()],
            upper: UpperDir::Disk,
            open_files: u64::MAX,
            cgroups: CgroupSet {
                controllers: vec![Controller { kind: Kind::Cpu, version: Version::V2, dir }],
            },
        }
    }

    fn requests() -> impl Iterator<Item = Asked> {
        let with_spec = [Request::Run, Request::StartTool, Request::Present];
        let plain = [Request::Terminate, Request::Kill, Request::Withdraw, Request::Release];
        let configure = [Request::Configure(config())];
        with_spec.map(|of| of(Box::new(spec()))).into_iter().chain(plain).chain(configure)
    }

    fn replies() -> Vec<Reply> {
        let withdrawal = Withdrawal {
            still_writing: true,
            over_limit: Some("disk".to_owned()),
            hampered: Some("memory".to_owned()),
            worn: true,
        };
        let report = |status| Report {
            status,
            user: Duration::from_micros(3),
            system: Duration::MAX,
            peak_memory_bytes: 5,
            over_limit: Some("memory".to_owned()),
            not_changed: vec![(Condition::Cpus, "one only".to_owned())],
        };
        vec![
            Reply::Ready { user_namespace: true, not_enforced: vec!["cpu".to_owned()] },
            Reply::Done(report(Status::Exited(-1))),
            Reply::Done(report(Status::Signalled(9))),
            Reply::Failed("no".to_owned()),
            Reply::Tidied,
            Reply::Presented,
            Reply::Withdrawn(Withdrawal::default()),
            Reply::Withdrawn(withdrawal),
        ]
    }

    #[test]
    fn messages_survive_the_wire() {
        for request in requests() {
            assert_eq!(decode::<Asked>(&body(&request)).unwrap(), request);
        }
        for reply in replies() {
            assert_eq!(decode::<Reply>(&body(&reply)).unwrap(), reply);
        }
    }

    #[test]
    fn a_command_is_sent_without_being_copied() {
        let borrowed = spec();
        let received = decode::<Asked>(&body(&Request::Run(&borrowed))).unwrap();
        assert_eq!(received, Request::Run(Box::new(spec())));
    }

    #[test]
    fn what_is_cut_short_or_goes_on_is_refused() {
        for mut body in requests().map(|request| body(&request)) {
            for end in 0..body.len() {
                assert!(decode::<Asked>(&body[..end]).is_err(), "cut at {end}");
            }
            body.push(0);
            assert!(matches!(decode::<Asked>(&body), Err(SandboxError::Malformed(_))));
        }
    }

    #[test]
    fn an_unknown_message_is_refused() {
        assert!(decode::<Asked>(&[8]).is_err());
        assert!(decode::<Reply>(&[5]).is_err());
    }

    #[test]
    fn a_frame_beyond_the_limit_is_not_sent() {
        let spec = CommandSpec { arguments: vec![vec![0; MAX_FRAME]], ..spec() };
        let refused = frame(&Request::Run(&spec)).unwrap_err();
        assert!(matches!(refused, SandboxError::CommandTooLarge { size, .. } if size > MAX_FRAME));
    }

    proptest! {
        /// Whatever a zygote says, which an action may have got hold of, is a message or an error.
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes: Vec<u8>, kind in 0..8u8) {
            let bytes = [vec![kind], bytes].concat();
            if let Ok(reply) = decode::<Reply>(&bytes) {
                prop_assert_eq!(decode::<Reply>(&body(&reply)).unwrap(), reply);
            }
            if let Ok(request) = decode::<Asked>(&bytes) {
                prop_assert_eq!(decode::<Asked>(&body(&request)).unwrap(), request);
            }
        }
    }
}
