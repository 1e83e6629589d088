//! System call numbers of each ABI that a kernel of this architecture runs programs of.

/// One ABI: its audit architecture, and the numbers of calls that the filters know.
pub(super) struct Abi {
    pub architecture: u32,
    /// Calls that neither actions nor the zygote, once it is set up, ever need.
    pub never: Vec<u32>,
    pub absent: Vec<u32>,
    /// Calls that the zygote needs for each action, and that no action needs.
    pub mounting: Vec<u32>,
    /// Calls whose first argument is flags of namespaces.
    pub namespaces: [u32; 2],
    /// Calls whose first argument is a family of sockets, and the third its protocol.
    pub sockets: [u32; 2],
    pub socketcall: Option<u32>,
    /// The call `rename`; `None` where there is only `renameat`.
    pub rename: Option<u32>,
    pub renameat: u32,
    pub renameat2: u32,
    pub has_x32: bool,
}

/// A program of any other is killed. On Arm these are the 32-bit ones.
pub(super) fn abis() -> Vec<Abi> {
    let mut all = vec![native()];
    if cfg!(target_arch = "x86_64") {
        all.push(i386());
    }
    all
}

/// The number of `open_tree_attr`, the same everywhere: the call is newer than the names in libc.
const OPEN_TREE_ATTR: u32 = 467;

const NATIVE: u32 = if cfg!(target_arch = "aarch64") { 0xc000_00b7 } else { 0xc000_003e };

fn native() -> Abi {
    let never = [
        libc::SYS_acct,
        libc::SYS_add_key,
        libc::SYS_bpf,
        libc::SYS_clock_adjtime,
        libc::SYS_clock_settime,
        libc::SYS_delete_module,
        libc::SYS_fanotify_init,
        libc::SYS_finit_module,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fsopen,
        libc::SYS_fspick,
        libc::SYS_init_module,
        libc::SYS_kexec_file_load,
        libc::SYS_kexec_load,
        libc::SYS_keyctl,
        libc::SYS_open_by_handle_at,
        libc::SYS_perf_event_open,
        libc::SYS_quotactl,
        libc::SYS_quotactl_fd,
        libc::SYS_reboot,
        libc::SYS_request_key,
        libc::SYS_settimeofday,
        libc::SYS_swapoff,
        libc::SYS_swapon,
        libc::SYS_syslog,
        libc::SYS_userfaultfd,
        libc::SYS_vhangup,
    ];
    // The flags of clone3 lie in memory where a filter cannot see them; C libraries fall back to clone.
    let absent = [
        libc::SYS_clone3,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
    ];
    let mounting = [
        libc::SYS_chroot,
        libc::SYS_mount,
        libc::SYS_mount_setattr,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_pivot_root,
        libc::SYS_setns,
        libc::SYS_umount2,
    ];
    Abi {
        architecture: NATIVE,
        never: never.map(number).to_vec(),
        absent: absent.map(number).to_vec(),
        mounting: mounting.map(number).into_iter().chain([OPEN_TREE_ATTR]).collect(),
        namespaces: [libc::SYS_clone, libc::SYS_unshare].map(number),
        sockets: [libc::SYS_socket, libc::SYS_socketpair].map(number),
        socketcall: None,
        rename: cfg!(target_arch = "x86_64").then_some(82),
        renameat: number(libc::SYS_renameat),
        renameat2: number(libc::SYS_renameat2),
        has_x32: cfg!(target_arch = "x86_64"),
    }
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

/// The ABI of 32-bit programs, and of 64-bit ones that use `int 0x80`: the same calls, and those
/// that only this ABI has.
fn i386() -> Abi {
    let never = [
        51,  // acct
        286, // add_key
        357, // bpf
        343, // clock_adjtime
        405, // clock_adjtime64
        264, // clock_settime
        404, // clock_settime64
        129, // delete_module
        338, // fanotify_init
        350, // finit_module
        431, // fsconfig
        432, // fsmount
        430, // fsopen
        433, // fspick
        128, // init_module
        283, // kexec_load
        288, // keyctl
        342, // open_by_handle_at
        336, // perf_event_open
        131, // quotactl
        443, // quotactl_fd
        88,  // reboot
        287, // request_key
        79,  // settimeofday
        25,  // stime
        115, // swapoff
        87,  // swapon
        103, // syslog
        374, // userfaultfd
        111, // vhangup
        113, // vm86old
        166, // vm86
    ];
    let absent = [
        435, // clone3
        425, // io_uring_setup
        426, // io_uring_enter
        427, // io_uring_register
    ];
    let mounting = [
        61,  // chroot
        21,  // mount
        442, // mount_setattr
        429, // move_mount
        428, // open_tree
        217, // pivot_root
        346, // setns
        22,  // umount
        52,  // umount2
        OPEN_TREE_ATTR,
    ];
    Abi {
        architecture: 0x4000_0003,
        never: never.to_vec(),
        absent: absent.to_vec(),
        mounting: mounting.to_vec(),
        namespaces: [120, 310],
        sockets: [359, 360],
        socketcall: Some(102),
        rename: Some(38),
        renameat: 302,
        renameat2: 353,
        has_x32: false,
    }
}
