//! A /sys of what programs ask about the machine they run on: processors, memory and the network
//! interfaces they have. The rest of the machine's is not there: it names the machine.

use std::fs;
use std::path::Path;

use super::error::{Context, ZygoteError};
use super::layout::place;
use super::layout::{MACHINE, make_dir};

/// The parts of the machine's /sys that an action sees, read-only, as far as the machine has them.
const SHOWN: [&str; 4] = [
    "devices/system/cpu",
    "devices/system/node",
    "kernel/mm/hugepages",
    "kernel/mm/transparent_hugepage",
];
/// The directory in /sys of the loopback device that an action without the machine's network has.
const LOOPBACK: &str = "class/net/lo";
const LOOPBACK_FILES: [(&str, &str); 8] = [
    ("address", "00:00:00:00:00:00\n"),
    ("carrier", "1\n"),
    ("flags", "0x9\n"),
    ("ifindex", "1\n"),
    ("mtu", "65536\n"),
    ("operstate", "unknown\n"),
    ("tx_queue_len", "1000\n"),
    ("type", "772\n"),
];

/// Fills `sys`, a directory of the first root that is prepared.
pub(super) fn populate(sys: &Path) -> Result<(), ZygoteError> {
    for part in SHOWN {
        let to = sys.join(part);
        if let Some(parent) = to.parent() {
            make_dir(parent)?;
        }
        place(&Path::new(MACHINE).join("sys").join(part), &to)?;
    }
    let loopback = sys.join(LOOPBACK);
    make_dir(&loopback)?;
    for (name, text) in LOOPBACK_FILES {
        fs::write(loopback.join(name), text).context("write", name)?;
    }
    Ok(())
}
