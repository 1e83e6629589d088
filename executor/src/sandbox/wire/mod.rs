//! The messages between a slot and its zygote, and their bytes.
//!
//! A frame is a little-endian u32 length and a body; the first byte of a body names the message.

mod read;
mod write;

use std::path::PathBuf;
use std::time::Duration;

use self::read::Reader;
use self::write::Writer;
use super::cgroup::CgroupSet;
use super::conditions::{Conditions, NotChanged};
use super::{CommandSpec, SandboxError, UpperDir, UserNamespace};

/// Arguments, environment and paths of one action together. The kernel itself takes 2 to 6 MiB.
pub(super) const MAX_FRAME: usize = 32 << 20;
pub(super) const LENGTH_BYTES: usize = 4;

/// What the zygote needs to know once, before its first action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ZygoteConfig {
    pub scratch_dir: PathBuf,
    pub user_namespace: UserNamespace,
    pub outer_id: u32,
    pub input_dirs: Vec<PathBuf>,
    pub image_dirs: Vec<PathBuf>,
    pub hidden: Vec<PathBuf>,
    pub upper: UpperDir,
    pub open_files: u64,
    pub cgroups: CgroupSet,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Configure(ZygoteConfig),
    /// Comes with two descriptors: the action's stdout and stderr.
    Run(Box<CommandSpec>),
    /// SIGTERM to every process of the action.
    Terminate,
    /// SIGKILL to every process of the action.
    Kill,
    /// A tool that stays for further requests, with the input root of the first. Comes with three
    /// descriptors: its stdin, stdout and stderr.
    StartTool(Box<CommandSpec>),
    /// The tool that runs is to see this input root from now on.
    Present(Box<CommandSpec>),
    /// The tool is not to see its input root any more.
    Withdraw,
    /// What the last request has written has been read. Has no reply.
    Release,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Ready {
        user_namespace: bool,
        not_enforced: Vec<String>,
    },
    /// Of an action it comes with one descriptor: the input root. Of a tool with none.
    Done(Report),
    /// Nothing ran, or its end is unknown: the sandbox's fault.
    Failed(String),
    /// Comes with one descriptor: the input root that the tool sees.
    Presented,
    Withdrawn(Withdrawal),
}

/// How a tool has left its input root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Withdrawal {
    /// It has files of it open for writing, or mapped so: what it wrote changes until it is ended.
    pub still_writing: bool,
    /// Says that what was written is all that may be, where it is.
    pub over_limit: Option<String>,
    /// Says what may have failed since the request before for what the tool has left behind: an
    /// action by itself has all that its limits allow.
    pub hampered: Option<String>,
    /// What it keeps of its own is near its limit.
    pub worn: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub status: Status,
    pub user: Duration,
    pub system: Duration,
    pub peak_memory_bytes: u64,
    /// Says which limit the action ran into, when one explains its end.
    pub over_limit: Option<String>,
    pub not_changed: Vec<NotChanged>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Exited(i32),
    Signalled(i32),
}

impl Request {
    pub(super) fn run_frame(spec: &CommandSpec) -> Result<Vec<u8>, SandboxError> {
        Self::spec_frame(1, spec)
    }

    pub(super) fn start_tool_frame(spec: &CommandSpec) -> Result<Vec<u8>, SandboxError> {
        Self::spec_frame(4, spec)
    }

    pub(super) fn present_frame(spec: &CommandSpec) -> Result<Vec<u8>, SandboxError> {
        Self::spec_frame(5, spec)
    }

    fn spec_frame(kind: u8, spec: &CommandSpec) -> Result<Vec<u8>, SandboxError> {
        let mut out = Writer::new(kind);
        out.spec(spec);
        out.finish()
    }

    pub(super) fn configure_frame(config: &ZygoteConfig) -> Result<Vec<u8>, SandboxError> {
        let mut out = Writer::new(0);
        out.config(config);
        out.finish()
    }

    /// A frame without content.
    pub(super) fn signal_frame(&self) -> Result<Vec<u8>, SandboxError> {
        let kind = match self {
            Self::Withdraw => 6,
            Self::Release => 7,
            Self::Kill => 3,
            _ => 2,
        };
        Writer::new(kind).finish()
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, SandboxError> {
        let mut input = Reader::new(body);
        let request = match input.u8()? {
            0 => Self::Configure(input.config()?),
            1 => Self::Run(Box::new(input.spec()?)),
            2 => Self::Terminate,
            3 => Self::Kill,
            4 => Self::StartTool(Box::new(input.spec()?)),
            5 => Self::Present(Box::new(input.spec()?)),
            6 => Self::Withdraw,
            7 => Self::Release,
            _ => return Err(SandboxError::Malformed("unknown request")),
        };
        input.end(request)
    }
}

impl Reply {
    pub(super) fn frame(&self) -> Result<Vec<u8>, SandboxError> {
        match self {
            Self::Ready { user_namespace, not_enforced } => {
                let mut out = Writer::new(0);
                out.u64(u64::from(*user_namespace));
                out.list(not_enforced, |out, text| out.bytes(text.as_bytes()));
                out.finish()
            }
            Self::Done(report) => {
                let mut out = Writer::new(1);
                let (kind, code) = match report.status {
                    Status::Exited(code) => (0, code),
                    Status::Signalled(signal) => (1, signal),
                };
                out.u64(kind);
                out.u64(u64::from(code.cast_unsigned()));
                out.duration(report.user);
                out.duration(report.system);
                out.u64(report.peak_memory_bytes);
                out.option(report.over_limit.as_ref(), |out, text| out.bytes(text.as_bytes()));
                out.list(&report.not_changed, |out, (condition, reason)| {
                    out.u64([*condition].into_iter().collect::<Conditions>().bits());
                    out.bytes(reason.as_bytes());
                });
                out.finish()
            }
            Self::Failed(message) => {
                let mut out = Writer::new(2);
                out.bytes(message.as_bytes());
                out.finish()
            }
            Self::Presented => Writer::new(3).finish(),
            Self::Withdrawn(left) => {
                let mut out = Writer::new(4);
                out.u64(u64::from(left.still_writing));
                for text in [&left.over_limit, &left.hampered] {
                    out.option(text.as_ref(), |out, text| out.bytes(text.as_bytes()));
                }
                out.u64(u64::from(left.worn));
                out.finish()
            }
        }
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, SandboxError> {
        let mut input = Reader::new(body);
        let reply = match input.u8()? {
            0 => Self::Ready {
                user_namespace: input.u64()? != 0,
                not_enforced: input.list(Reader::string)?,
            },
            1 => Self::Done(input.report()?),
            2 => Self::Failed(input.string()?),
            3 => Self::Presented,
            4 => Self::Withdrawn(input.withdrawal()?),
            _ => return Err(SandboxError::Malformed("unknown reply")),
        };
        input.end(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::super::conditions::Condition;
    use super::super::{Limits, RootFs};
    use super::*;

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

    #[test]
    fn a_command_survives_the_wire() {
        let frame = Request::run_frame(&spec()).unwrap();
        let Request::Run(decoded) = Request::decode(&frame[LENGTH_BYTES..]).unwrap() else {
            unreachable!()
        };
        assert_eq!(format!("{decoded:?}"), format!("{:?}", spec()));
    }

    #[test]
    fn every_cut_of_a_frame_is_an_error() {
        for frame in [Request::run_frame, Request::start_tool_frame, Request::present_frame] {
            let frame = frame(&spec()).unwrap();
            for end in LENGTH_BYTES..frame.len() {
                assert!(Request::decode(&frame[LENGTH_BYTES..end]).is_err(), "cut at {end}");
            }
        }
    }

    #[test]
    fn requests_to_a_tool_survive_the_wire() {
        let decoded = |frame: Vec<u8>| Request::decode(&frame[LENGTH_BYTES..]).unwrap();
        let start = decoded(Request::start_tool_frame(&spec()).unwrap());
        assert_eq!(start, Request::StartTool(Box::new(spec())));
        let present = decoded(Request::present_frame(&spec()).unwrap());
        assert_eq!(present, Request::Present(Box::new(spec())));
        for plain in [Request::Terminate, Request::Kill, Request::Withdraw, Request::Release] {
            assert_eq!(decoded(plain.signal_frame().unwrap()), plain);
        }
        let full = Withdrawal {
            still_writing: true,
            over_limit: Some("disk".to_owned()),
            hampered: Some("memory".to_owned()),
            worn: true,
        };
        let withdrawn = [Withdrawal::default(), full].map(Reply::Withdrawn);
        for reply in withdrawn.into_iter().chain([Reply::Presented]) {
            let frame = reply.frame().unwrap();
            assert_eq!(Reply::decode(&frame[LENGTH_BYTES..]).unwrap(), reply);
        }
    }

    #[test]
    fn a_report_survives_the_wire() {
        let reply = Reply::Done(Report {
            status: Status::Exited(-1),
            user: Duration::from_micros(3),
            system: Duration::ZERO,
            peak_memory_bytes: 5,
            over_limit: Some("memory".to_owned()),
            not_changed: vec![(Condition::Cpus, "one only".to_owned())],
        });
        let frame = reply.frame().unwrap();
        assert_eq!(Reply::decode(&frame[LENGTH_BYTES..]).unwrap(), reply);
    }
}
