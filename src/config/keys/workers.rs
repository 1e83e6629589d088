//! Workers, and what actions get there.

use super::key::{KIB, Key, Kind, MIB, key};

/// Least memory of an action: a shell alone needs some of it.
const LEAST_MEMORY: u64 = 16 * MIB;
/// Fewest processes of an action: the sandbox has two of its own.
const LEAST_PROCESSES: u64 = 8;
/// Most processes of an action: as many as a kernel knows at a time.
const MOST_PROCESSES: u64 = 1 << 22;
/// Most slots that the scheduler takes from one worker.
const MOST_SLOTS: u64 = kiln_scheduler::session::MAX_SLOTS as u64;

pub const KEYS: &[Key] = &[
    key(
        "workers.count",
        "auto",
        Kind::NumberIn(0, MOST_SLOTS),
        "Actions run at a time here. auto: one a core. 0: none.",
    ),
    key(
        "workers.properties",
        "OSFamily=linux, OSFamily=Linux, ISA=x86-64",
        Kind::Properties,
        "Platform properties that the workers here offer; a value replaces the default ones.",
    ),
    key(
        "workers.sandbox",
        "best-effort",
        Kind::Choice(&["best-effort", "required"]),
        "required: refuse to start when this machine cannot enforce everything.",
    ),
    key(
        "workers.root",
        "host",
        Kind::Choice(&["host", "strict", "inputs"]),
        "What an action sees beside its inputs. host: this machine's /usr and the like, read-only. strict: nothing. inputs: nothing, and the input root is / itself, as BuildStream needs it. Where it is not host, no action may ask for host.",
    ),
    key("workers.allow_network", "false", Kind::Bool, "Grant the property kiln-network=true."),
    key(
        "workers.memory",
        "auto",
        Kind::SizeFrom(LEAST_MEMORY),
        "Most memory of one action. auto: its share of four fifths of the machine.",
    ),
    key(
        "workers.processes",
        "4096",
        Kind::NumberIn(LEAST_PROCESSES, MOST_PROCESSES),
        "Most processes of one action.",
    ),
    key(
        "workers.disk",
        "auto",
        Kind::SizeFrom(MIB),
        "Most bytes that one action may write. auto: as workers.memory.",
    ),
    key(
        "workers.output",
        "128MiB",
        Kind::SizeFrom(KIB),
        "Bytes kept of stdout and of stderr of one action: of more, the first and the last. An action that prints 16 times as much is stopped.",
    ),
    key(
        "workers.absence",
        "1m",
        Kind::Duration,
        "How long actions go on while no server is heard; then they are stopped.",
    ),
    key(
        "workers.drain",
        "1h",
        Kind::Duration,
        "What running actions get when kiln worker is told to end; then they are given back and run elsewhere, \
         without a retry. Stay below what its supervisor waits.",
    ),
    key(
        "workers.persistent",
        "auto",
        Kind::Number,
        "Most tools that stay between actions (Bazel's persistent workers). auto: one for each action \
         that runs at a time. 0: none, every action runs by itself. At most 1024.",
    ),
    key(
        "workers.persistent_idle",
        "5m",
        Kind::Duration,
        "A tool that no action asked for so long is ended.",
    ),
    key(
        "worker.name",
        "",
        Kind::Text,
        "What kiln worker is called, in lists and by kiln worker drain; two must not be called alike. Empty: \
         this machine's name and a number that changes with each start.",
    ),
    key(
        "worker.listen",
        "",
        Kind::OptionalAddress,
        "Where kiln worker answers /healthz, /readyz and /metrics, with TLS where tls.cert is set. \
         Empty: nowhere.",
    ),
    key(
        "images.allow",
        "",
        Kind::List,
        "Container images that actions may name (property container-image): registries \
         (registry.example:5000), repositories (docker.io/library), directories of image layouts \
         (oci:/srv/images), * for every registry. Empty: none.",
    ),
    key(
        "images.max_size",
        "20GiB",
        Kind::Size,
        "Most bytes of unpacked images; the least recently used make room. Also of one image.",
    ),
    key(
        "images.auth_file",
        "",
        Kind::Path,
        "Docker config.json with credentials for registries (auths). Read for every pull.",
    ),
    key(
        "images.ca",
        "",
        Kind::Path,
        "Authorities (PEM) of registries, trusted besides the system's.",
    ),
    key(
        "images.insecure",
        "",
        Kind::List,
        "Registries that may be spoken to without TLS (HOST or HOST:PORT). Loopback always may.",
    ),
];
