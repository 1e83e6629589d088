//! The user namespace of a slot, and who an action is in it.

use std::fs;
use std::os::fd::AsFd;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{self, Gid, Uid};

use super::error::{Context, ZygoteError};
use super::process;
use crate::sandbox::{Condition, Conditions, UserNamespace};

/// The user and group of every action, seen from inside.
const INNER_ID: u32 = 1000;
/// What an audit makes of it.
const OTHER_INNER_ID: u32 = 2345;
/// Beyond those of the slots, on the machine.
const OTHER_OUTER_ID: u32 = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub user_namespace: bool,
    /// The zygote has another user than its actions, and changes to theirs for each.
    pub switches_user: bool,
}

impl Identity {
    /// Who the action is under these conditions.
    pub(super) fn under(self, conditions: Conditions) -> Self {
        if !conditions.has(Condition::User) {
            return self;
        }
        let other = if self.user_namespace { OTHER_INNER_ID } else { self.uid + OTHER_OUTER_ID };
        Self { uid: other, gid: other, ..self }
    }
}

/// Enters a user namespace if `wanted` and the kernel allow it.
pub(super) fn enter(wanted: UserNamespace, outer_id: u32) -> Result<Identity, ZygoteError> {
    let root = Uid::effective().is_root();
    if root {
        unistd::setgroups(&[]).context("setgroups", "none")?;
    }
    if wanted == UserNamespace::Never {
        return without(root, outer_id);
    }
    let entered = if root { enter_as_root(outer_id) } else { enter_as_user() };
    match entered {
        Err(error) if root && wanted == UserNamespace::Auto && error.errno().is_some() => {
            without(root, outer_id)
        }
        other => other,
    }
}

fn without(root: bool, outer_id: u32) -> Result<Identity, ZygoteError> {
    if !root {
        return Err(ZygoteError::Refused(
            "isolation without a user namespace needs root: run the server as root, or allow user namespaces".to_owned(),
        ));
    }
    Ok(Identity { uid: outer_id, gid: outer_id, user_namespace: false, switches_user: true })
}

/// Only the own user can be mapped, so the zygote and its actions are the same user.
fn enter_as_user() -> Result<Identity, ZygoteError> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| {
        ZygoteError::Refused(format!(
            "this user may not create a user namespace ({error}): run the server as root, or allow them \
             (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, \
             user.max_user_namespaces above 0)"
        ))
    })?;
    fs::write("/proc/self/setgroups", "deny").context("write", "/proc/self/setgroups")?;
    fs::write("/proc/self/uid_map", format!("{INNER_ID} {uid} 1"))
        .context("write", "/proc/self/uid_map")?;
    fs::write("/proc/self/gid_map", format!("{INNER_ID} {gid} 1"))
        .context("write", "/proc/self/gid_map")?;
    Ok(Identity { uid: INNER_ID, gid: INNER_ID, user_namespace: true, switches_user: false })
}

/// Root stays root inside, to own and mount; actions are the slot's own user outside.
fn enter_as_root(outer_id: u32) -> Result<Identity, ZygoteError> {
    let zygote = unistd::getpid();
    let (wait_end, go_end) =
        unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("pipe2", "for the id maps")?;
    // Maps of more than one's own id have to be written from the parent namespace.
    let mut go_end = Some(go_end);
    let mut stack = process::stack();
    let mapper = process::spawn(CloneFlags::empty(), &mut stack, &mut || {
        drop(go_end.take());
        let mut byte = [0];
        match unistd::read(wait_end.as_fd(), &mut byte) {
            Ok(1) => {}
            _ => return 1,
        }
        let map = format!(
            "0 0 1\n{INNER_ID} {outer_id} 1\n{OTHER_INNER_ID} {} 1",
            outer_id + OTHER_OUTER_ID
        );
        let written = fs::write(format!("/proc/{zygote}/uid_map"), &map)
            .and_then(|()| fs::write(format!("/proc/{zygote}/gid_map"), &map));
        i32::from(written.is_err())
    })?;
    let unshared = unshare(CloneFlags::CLONE_NEWUSER).context("unshare", "the user namespace");
    if let (Ok(()), Some(go_end)) = (&unshared, &go_end) {
        unistd::write(go_end, b"!").context("write", "to the id mapper")?;
    }
    drop(go_end);
    let mapped = process::wait(mapper)?;
    unshared?;
    if mapped.status != crate::sandbox::wire::Status::Exited(0) {
        return Err(ZygoteError::Refused(
            "the user namespace's id maps could not be written".to_owned(),
        ));
    }
    Ok(Identity { uid: INNER_ID, gid: INNER_ID, user_namespace: true, switches_user: true })
}
