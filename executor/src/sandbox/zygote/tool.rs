//! A tool that stays for further requests, each with an input root of its own.
//!
//! Its own input root is an empty frame, read-only, in which the uppermost entries of the current
//! request's are mounted one by one: the tool's current directory stays the same one while all that
//! is in it changes. Between two requests the frame is empty.

use std::os::fd::OwnedFd;

use super::action::{Streams, Workshop, attend, give, not_started};
use super::command::{self, Command};
use super::error::ZygoteError;
use super::mounts;
use super::renames::Renames;
use super::scratch::Fill;
use super::socket::Socket;
use crate::sandbox::wire::{Asked, Reply, Report, Request, Withdrawal};
use crate::sandbox::{CommandSpec, Limits};

impl Workshop {
    /// The whole life of a tool. `None`: the server is gone, and the tool with it.
    pub(super) fn run_tool(
        &mut self,
        spec: &CommandSpec,
        fds: Vec<OwnedFd>,
        socket: &mut Socket,
    ) -> Option<(Reply, Option<OwnedFd>)> {
        match self.try_run_tool(spec, fds, socket) {
            Ok(Some(report)) => Some((Reply::Done(report), None)),
            Ok(None) => None,
            Err(error) => Some((Reply::Failed(error.to_string()), None)),
        }
    }

    fn try_run_tool(
        &mut self,
        spec: &CommandSpec,
        fds: Vec<OwnedFd>,
        socket: &mut Socket,
    ) -> Result<Option<Report>, ZygoteError> {
        let [stdin, stdout, stderr] = <[OwnedFd; 3]>::try_from(fds).map_err(|_| {
            ZygoteError::Refused("a tool needs three descriptors for its streams".to_owned())
        })?;
        for pipe in [&stdin, &stdout, &stderr] {
            give(&self.identity, pipe)?;
        }
        let command = match Command::new(spec) {
            Ok(command) => command,
            Err(why) => return Ok(Some(not_started(&why, &stderr))),
        };
        let root = self.prepare_request(spec)?;
        let mut trees = Vec::from(self.scratch.tool_trees(&spec.limits)?);
        let entries = self.scratch.show(spec)?;
        self.shown = entries.iter().map(|(_, at)| at.clone()).collect();
        trees.extend(entries);
        if !self.limit(&spec.limits)? {
            return Err(ZygoteError::Refused("its memory limit leaves no room for it".to_owned()));
        }
        let streams = Streams { stdin: Some(&stdin), stdout: &stdout, stderr: &stderr };
        let init = self.start(spec, self.identity, &command, streams, &trees)?;
        // Only the tool holds the ends of its pipes from here on.
        drop((stdin, stdout, stderr, trees));
        // Where this fails the server is gone: so will be this process, and the tool with it.
        socket.send(&Reply::Presented, Some(root))?;
        let listener = self.renames.clone();
        let serve = &mut |request, socket: &Socket| {
            let Some((reply, root)) = self.serve(request, &spec.limits)? else { return Ok(()) };
            socket.send(&reply, root)
        };
        // Its input root is one of many mounts: what the kernel says of renames is right.
        let ended = attend(init, socket, Renames::new(listener.as_deref(), None), serve)?;
        ended.map(|ended| self.conclude(spec, ended)).transpose()
    }

    fn prepare_request(&mut self, spec: &CommandSpec) -> Result<OwnedFd, ZygoteError> {
        match self.scratch.prepare(spec, self.identity)? {
            (root, true) => Ok(root),
            (_, false) => Err(ZygoteError::Refused(command::no_room().message)),
        }
    }

    /// Does what the server asks for while the tool runs. `limits`: those of the tool and of each
    /// request.
    fn serve(
        &mut self,
        request: Asked,
        limits: &Limits,
    ) -> Result<Option<(Reply, Option<OwnedFd>)>, ZygoteError> {
        match request {
            Request::Present(spec) => {
                if !self.withdraw()? {
                    let why = "the tool still writes into the input root before";
                    return Err(ZygoteError::Refused(why.to_owned()));
                }
                self.scratch.check_held()?;
                let root = self.prepare_request(&spec)?;
                self.present(&spec)?;
                Ok(Some((Reply::Presented, Some(root))))
            }
            Request::Withdraw => {
                let over_limit = self.disk_full(limits);
                let hampered = self.hampered(limits);
                let worn = self.scratch.own_place() != Fill::Little;
                let still_writing = !self.withdraw()?;
                let left = Withdrawal { still_writing, over_limit, hampered, worn };
                Ok(Some((Reply::Withdrawn(left), None)))
            }
            Request::Release => self.scratch.release().map(|()| None),
            _ => Err(ZygoteError::Refused("a request came while a tool runs".to_owned())),
        }
    }

    /// A sentence on what the tool ran out of since this was asked last, and may have used up
    /// itself before; `None`: nothing.
    fn hampered(&mut self, limits: &Limits) -> Option<String> {
        let seen = self.cgroups.look();
        let lacked = [
            (seen.out_of_memory, "memory", limits.memory_bytes),
            (seen.out_of_processes, "processes", limits.processes.map(u64::from)),
            (self.scratch.own_place() == Fill::Full, "room in /tmp", limits.disk_bytes),
        ];
        let (_, what, limit) = lacked.into_iter().find(|(lacks, ..)| *lacks)?;
        let limit = limit.map_or_else(String::new, |limit| format!(", of {limit}"));
        Some(format!("the tool ran out of {what}{limit}"))
    }

    fn present(&mut self, spec: &CommandSpec) -> Result<(), ZygoteError> {
        let trees = self.scratch.show(spec)?;
        self.shown = trees.iter().map(|(_, at)| at.clone()).collect();
        self.in_namespace(|| trees.iter().try_for_each(|(tree, at)| mounts::attach(tree, at)))
    }

    /// Takes the input root away from the tool. What it has open stays open to it, and what it has
    /// mapped stays mapped, but no path leads there any more, and nothing more can be written
    /// there. False: except where the tool has files open for writing.
    fn withdraw(&mut self) -> Result<bool, ZygoteError> {
        let shown = std::mem::take(&mut self.shown);
        let mut all_ended = true;
        self.in_namespace(|| {
            shown.iter().try_for_each(|at| {
                all_ended &= mounts::end_writing(at)?;
                mounts::detach(at)
            })
        })?;
        self.scratch.empty_frame()?;
        Ok(all_ended)
    }

    /// Does `work` in the tool's mount namespace, whose paths the tool has no say in.
    fn in_namespace(
        &self,
        work: impl FnOnce() -> Result<(), ZygoteError>,
    ) -> Result<(), ZygoteError> {
        let namespace = self.last.as_ref();
        let namespace =
            namespace.ok_or_else(|| ZygoteError::Refused("no tool has a namespace".to_owned()))?;
        namespace.enter()?;
        let worked = work();
        self.home.enter()?;
        worked
    }
}
