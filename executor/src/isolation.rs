//! How an action was kept apart, for whoever asks later where its outputs came from.

use kiln_protos::protobuf::Any;
use kiln_protos::worker::sandboxed::{Mechanism, Root};
use kiln_protos::worker::{SANDBOXED, Sandboxed};
use prost::Message;

use crate::command::Prepared;
use crate::sandbox::{Capabilities, CommandSpec, RootFs};

/// The message that says how the action `ran` was kept apart. `capabilities`: what its slot
/// enforces; `None`: nothing. `by_tool`: a tool that stays answered for it.
pub fn report(ran: &Prepared, capabilities: Option<&Capabilities>, by_tool: bool) -> Any {
    let image = ran.image.as_ref().map(|it| it.digest.clone()).unwrap_or_default();
    let enforced = capabilities.map_or_else(Vec::new, |it| enforced(&ran.spec, it, by_tool));
    let told = Sandboxed {
        root: root(&ran.spec.root).into(),
        image,
        enforced: enforced.into_iter().map(i32::from).collect(),
    };
    Any { type_url: SANDBOXED.to_owned(), value: told.encode_to_vec() }
}

fn root(root: &RootFs) -> Root {
    match root {
        RootFs::Host => Root::Host,
        RootFs::Directory(_) => Root::Image,
        RootFs::Empty | RootFs::Inputs => Root::Inputs,
    }
}

/// The mechanisms that kept the action apart. Its user is among them even without a user namespace,
/// since each slot has a user of its own then. Its processes are not where a tool answered, since
/// that has done other work before.
fn enforced(spec: &CommandSpec, capabilities: &Capabilities, by_tool: bool) -> Vec<Mechanism> {
    let all = [
        (Mechanism::Processes, !by_tool),
        (Mechanism::Mounts, true),
        (Mechanism::NoNetwork, !spec.network),
        (Mechanism::User, true),
        (Mechanism::SystemCalls, true),
        (Mechanism::Memory, capabilities.limits_memory()),
        (Mechanism::ProcessCount, capabilities.limits_processes()),
        (Mechanism::Cpu, capabilities.limits_cpu()),
    ];
    all.into_iter().filter(|(_, is)| *is).map(|(mechanism, _)| mechanism).collect()
}
