//! The sandbox's own process, one per slot: small, single-threaded, and started before the server
//! grows. It lives in the slot's user namespace with the roots prepared, and makes each action.

mod action;
mod attributes;
mod command;
mod conditions;
mod copy;
mod devices;
mod elsewhere;
mod error;
mod etc;
mod hide;
mod identity;
mod init;
mod layout;
mod mounts;
mod namespace;
mod network;
mod outcome;
mod owner;
mod privileges;
mod process;
mod renames;
mod roots;
mod scratch;
mod seccomp;
mod socket;
mod system;
mod tool;
mod writable;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use nix::unistd::{dup2_stdin, getpid};

use self::action::Workshop;
use self::error::{Context, ZygoteError};
use self::identity::Identity;
use self::namespace::MountNamespace;
use self::network::EmptyNetwork;
use self::renames::Listener;
use self::roots::Roots;
use self::scratch::Scratch;
use self::socket::Socket;
use super::cgroup::Cgroups;
use super::wire::{Reply, Request, ZygoteConfig};

/// The whole body of the zygote: call it first in `main`, before any thread or runtime. Its
/// standard input is the socket to the slot.
pub fn zygote_main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), ZygoteError> {
    let kept = attributes::set()?;
    let mut socket = Socket::new(take_stdin()?);
    let config = match socket.receive()? {
        Some((Request::Configure(config), _)) => config,
        Some(_) => {
            return Err(ZygoteError::Refused(
                "the first message has to be the configuration".to_owned(),
            ));
        }
        None => return Ok(()),
    };
    let mut workshop = match set_up(&config, kept) {
        Ok((workshop, ready)) => {
            socket.send(&ready, None)?;
            workshop
        }
        Err(error) => return socket.send(&Reply::Failed(error.to_string()), None),
    };
    while let Some((request, fds)) = socket.receive()? {
        let answer = match request {
            Request::Run(spec) => workshop.run(&spec, fds, &mut socket),
            Request::StartTool(spec) => workshop.run_tool(&spec, fds, &mut socket),
            // A request to end an action may come when it has already ended.
            _ => continue,
        };
        let Some((reply, root)) = answer else { return Ok(()) };
        socket.send(&reply, root)?;
        workshop.tidy();
        if socket.send(&Reply::Tidied, None).is_err() {
            // The server has heard all that it wanted to.
            return Ok(());
        }
    }
    Ok(())
}

/// Frees the place of standard input, which the socket came as.
fn take_stdin() -> Result<OwnedFd, ZygoteError> {
    let socket = io::stdin().as_fd().try_clone_to_owned().context("dup", "the socket")?;
    let null = File::open("/dev/null").context("open", "/dev/null")?;
    dup2_stdin(&null).context("dup2", "stdin")?;
    Ok(socket)
}

/// The order matters: cgroup files are opened with the server's rights, the roots are filled while the
/// machine is still mounted, and nothing is given up before it was used.
fn set_up(
    config: &ZygoteConfig,
    mut not_enforced: Vec<String>,
) -> Result<(Workshop, Reply), ZygoteError> {
    not_enforced.extend(attributes::set_limits(config.open_files)?);
    let cgroups = Cgroups::open(&config.cgroups).map_err(ZygoteError::Refused)?;
    cgroups.enter().context("enter", "the slot's cgroups")?;
    let null = File::open("/dev/null").context("open", "/dev/null")?;
    let zygote = process::pidfd(getpid())?;

    let inputs = owner::inputs(&config.input_dirs, config.outer_id);
    let devices = devices::private();
    let (identity, namespace) = identity::enter(config.user_namespace, config.outer_id)?;
    if !identity.user_namespace {
        not_enforced.push(
            "user namespace: this machine allows none; actions run as the slot's own user"
                .to_owned(),
        );
    }
    let hidden = hide::find(&config.hidden);
    layout::enter(&config.scratch_dir, &config.input_dirs, &config.image_dirs)?;
    if let Some(devices) = devices {
        mounts::attach(&devices, Path::new(layout::DEVICES))?;
    }
    let owned = inputs.is_some_and(|inputs| inputs.mount(&identity));
    let identity = Identity { owns_inputs: owned || !identity.switches_user, ..identity };
    let roots = Roots::prepare(identity, hidden)?;
    layout::leave_machine()?;
    let network = EmptyNetwork::create()?;
    privileges::forbid_new_privileges()?;

    let workshop = Workshop {
        scratch: Scratch::new(config.upper, identity)?,
        outcome: outcome::Outcome::new()?,
        filter: seccomp::OfAction::new(),
        init_stack: process::stack(),
        program_stack: process::stack(),
        upper: config.upper,
        namespace,
        home: MountNamespace::current()?,
        last: None,
        shown: Vec::new(),
        network: Some(network),
        identity,
        cgroups,
        roots,
        null,
        zygote,
        renames: None,
    };
    let renames = seccomp::apply()?.map(|listener| Rc::new(Listener::new(listener)));
    let workshop = Workshop { renames, ..workshop };
    Ok((workshop, Reply::Ready { user_namespace: identity.user_namespace, not_enforced }))
}
