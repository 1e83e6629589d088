//! The user namespace of a slot, and who an action is in it.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{self, Gid, Uid};

use super::error::{Context, ZygoteError};
use super::layout::{INPUTS, OTHER_INPUTS};
use super::process;
use crate::sandbox::{Condition, Conditions, UserNamespace};

/// The user and group of every action, seen from inside.
const INNER_ID: u32 = 1000;
/// The user and group, seen from inside, of an action whose user the hermeticity check changes.
const OTHER_INNER_ID: u32 = 2345;
/// Added, outside of the sandbox, to the user and group of such an action: the sum is beyond those
/// of the slots.
pub(super) const OTHER_OUTER_ID: u32 = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub user_namespace: bool,
    /// Whether the zygote has another user than its actions, and changes to theirs for each.
    pub switches_user: bool,
    /// Whether inputs belong to the action's user.
    pub owns_inputs: bool,
    /// The path in the zygote's root at which inputs lie.
    pub inputs: &'static str,
}

impl Identity {
    /// The identity of an action under these conditions: another one where its user is changed.
    pub(super) fn under(self, conditions: Conditions) -> Self {
        if !conditions.has(Condition::User) {
            return self;
        }
        let other = if self.user_namespace { OTHER_INNER_ID } else { self.uid + OTHER_OUTER_ID };
        let inputs = if self.owns_inputs { OTHER_INPUTS } else { self.inputs };
        Self { uid: other, gid: other, inputs, ..self }
    }
}

/// Who an action is, and the user namespace that its program enters from the zygote's, if it does.
type Entered = (Identity, Option<OwnedFd>);

/// Enters a user namespace if `wanted` and the kernel allow it.
pub(super) fn enter(wanted: UserNamespace, outer_id: u32) -> Result<Entered, ZygoteError> {
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

fn without(root: bool, outer_id: u32) -> Result<Entered, ZygoteError> {
    if !root {
        return Err(ZygoteError::Refused(
            "isolation without a user namespace needs root: run the server as root, or allow user namespaces".to_owned(),
        ));
    }
    Ok((identity(outer_id, false, true), None))
}

fn identity(id: u32, user_namespace: bool, switches_user: bool) -> Identity {
    let (uid, gid, owns_inputs, inputs) = (id, id, false, INPUTS);
    Identity { uid, gid, user_namespace, switches_user, owns_inputs, inputs }
}

/// Only the own user can be mapped, so the zygote and its actions are the same user. Terminals can be
/// mounted only where a user is root, so the zygote calls it that, and programs, in a user namespace of
/// their own, what every action's user is called.
fn enter_as_user() -> Result<Entered, ZygoteError> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| {
        ZygoteError::Refused(format!(
            "this user may not create a user namespace ({error}): run the server as root, or allow them \
             (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, \
             user.max_user_namespaces above 0)"
        ))
    })?;
    map_self((0, uid.as_raw()), (0, gid.as_raw()))?;
    let mut made = None;
    let mut stack = process::stack();
    // The child shares memory and descriptors: what it opens in its namespace stays open here.
    let flags = CloneFlags::CLONE_FILES | CloneFlags::CLONE_NEWUSER;
    let child = process::vfork(flags, &mut stack, &mut || {
        let mapped = map_self((INNER_ID, 0), (INNER_ID, 0));
        let path = "/proc/self/ns/user";
        made = Some(mapped.and_then(|()| fs::File::open(path).context("open", path)));
        0
    })?;
    process::wait(child)?;
    let namespace = made.unwrap_or_else(|| {
        Err(ZygoteError::Refused("no process in the new user namespace".to_owned()))
    })?;
    Ok((identity(INNER_ID, true, false), Some(namespace.into())))
}

/// Maps one user and one group: each is the number in this process's new user namespace, and that
/// outside.
fn map_self(user: (u32, u32), group: (u32, u32)) -> Result<(), ZygoteError> {
    let line = |(inside, outside)| format!("{inside} {outside} 1");
    let files =
        [("setgroups", "deny".to_owned()), ("uid_map", line(user)), ("gid_map", line(group))];
    for (name, text) in files {
        let path = format!("/proc/self/{name}");
        fs::write(&path, text).context("write", path)?;
    }
    Ok(())
}

/// Root stays root inside, to own and mount; actions are the slot's own user outside.
fn enter_as_root(outer_id: u32) -> Result<Entered, ZygoteError> {
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
    Ok((identity(INNER_ID, true, true), None))
}
