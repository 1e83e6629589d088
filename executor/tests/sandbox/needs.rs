//! What programs of a build expect of the machine they run on.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use kiln_executor::sandbox::{Condition, Ending, RootFs};

use crate::both;
use crate::harness::Fixture;

/// Adds an input with the modes that the cache of inputs gives it and its directories.
fn input(slot: &Fixture, path: &str, content: &str) {
    let file = slot.input(path, content);
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let mut directory = file.parent().unwrap();
    while directory.starts_with(slot.inputs()) {
        fs::set_permissions(directory, PermissionsExt::from_mode(0o777)).unwrap();
        directory = directory.parent().unwrap();
    }
}

both! {
    async fn terminals_are_the_actions_own(slot: &mut Fixture) {
        let python = "import os, pty; print(pty.spawn(['/bin/sh', '-c', 'test -t 0 && tty']))";
        for _ in 0..2 {
            let ran = slot.run(&slot.command(&["python3", "-c", python])).await;
            // The action gets the first number, because no other process has a terminal in its /dev/pts.
            assert_eq!(ran.succeeded().replace('\r', ""), "/dev/pts/0\n0");
        }
        let ran = slot.sh("script -qec 'test -t 1 && stat -c %U $(tty)' /dev/null; ls /dev/pts").await;
        assert_eq!(ran.succeeded().replace('\r', ""), "kiln\nptmx");
        slot.sh("! echo x 2>/dev/null > /dev/tty").await.succeeded();
    }

    async fn programs_of_32_bits_run_and_find_no_way_around(slot: &mut Fixture) {
        let program = |code: &[u8]| {
            let bytes = elf32(code).iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
            format!("printf '{bytes}' > p && chmod +x p && ./p")
        };
        let hello = slot.sh(&program(&HELLO)).await;
        if hello.ending == Ending::Exited(126) {
            eprintln!("SKIPPED: this kernel runs no 32-bit programs");
            return;
        }
        assert_eq!(hello.ending, Ending::Exited(7), "{}", hello.stderr);
        assert_eq!(hello.stdout, "32");
        for (number, arguments, errno) in [
            // unshare(CLONE_NEWUSER), socket(AF_VSOCK, SOCK_STREAM), socketcall(SYS_SOCKET), io_uring_setup
            (310_u32, [0x1000_0000_u32, 0, 0], libc::EPERM),
            (359, [40, 1, 0], libc::EAFNOSUPPORT),
            (102, [1, 0, 0], libc::EAFNOSUPPORT),
            (425, [1, 0, 0], libc::ENOSYS),
            // umount(NULL), setns(-1), open_tree(AT_FDCWD, NULL, 0)
            (22, [0, 0, 0], libc::EPERM),
            (346, [u32::MAX, 0, 0], libc::EPERM),
            (428, [(-100_i32).cast_unsigned(), 0, 0], libc::EPERM),
        ] {
            let ran = slot.sh(&program(&fails_with(number, arguments))).await;
            assert_eq!(ran.ending, Ending::Exited(errno), "call {number}: {}", ran.stderr);
        }
        let ran = slot.sh(&program(&fails_with(359, [1, 1, 0]))).await;
        // The exit code is the new descriptor, 3, negated, so the call is allowed.
        assert_eq!(ran.ending, Ending::Exited(253));
    }

    async fn sockets_are_those_that_a_network_namespace_bounds(slot: &mut Fixture) {
        let script = "
import ctypes, errno, socket
for family, protocol in [(1, 0), (2, 0), (10, 0), (16, 0), (16, 9), (17, 0), (38, 0), (40, 0), (42, 0)]:
    kind = socket.SOCK_RAW if family == 16 else socket.SOCK_SEQPACKET if family == 38 else socket.SOCK_STREAM
    try:
        socket.socket(family, kind, protocol).close()
        print(family, protocol, 'yes')
    except OSError as error:
        print(family, protocol, errno.errorcode[error.errno])
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(0x40000000 + 39), errno.errorcode[ctypes.get_errno()])
print([name for _, name in socket.if_nameindex()])
";
        let ran = slot.run(&slot.command(&["python3", "-c", script])).await;
        let refused = ["16 9 EPROTONOSUPPORT", "17 0 EAFNOSUPPORT", "38 0 EAFNOSUPPORT", "40 0 EAFNOSUPPORT",
                       "42 0 EAFNOSUPPORT", "-1 ENOSYS", "['lo']"];
        let expected = format!("1 0 yes\n2 0 yes\n10 0 yes\n16 0 yes\n{}", refused.join("\n"));
        assert_eq!(ran.succeeded(), expected);
    }

    // With these arguments the kernel would give another answer before it asks for capabilities.
    async fn what_mounts_is_out_of_reach_whatever_the_kernel_would_say(slot: &mut Fixture) {
        let script = "
import ctypes, errno, platform
libc = ctypes.CDLL(None, use_errno=True)
x86 = platform.machine() == 'x86_64'
here, bad = -100, ctypes.c_void_p(8)
calls = {'chroot': (161 if x86 else 51, bad), 'mount': (165 if x86 else 40, bad, bad, bad, 0, 0),
         'umount2': (166 if x86 else 39, bad, 0x7fff), 'setns': (308 if x86 else 268, -1, 0),
         'open_tree': (428, here, b'/', 0), 'mount_setattr': (442, here, b'/', 0x7fff, 0, 0)}
for name, call in calls.items():
    print(name, libc.syscall(*call), errno.errorcode[ctypes.get_errno()])
";
        let ran = slot.run(&slot.command(&["python3", "-c", script])).await;
        let names = ["chroot", "mount", "umount2", "setns", "open_tree", "mount_setattr"];
        let refused = names.map(|name| format!("{name} -1 EPERM"));
        assert_eq!(ran.succeeded(), refused.join("\n"));
    }

    async fn inputs_are_the_actions_own(slot: &mut Fixture) {
        input(slot, "d/sub/f", "1");
        input(slot, "d/g", "2");
        input(slot, "in.txt", "3\n");
        let before = fs::metadata(slot.inputs().join("in.txt")).unwrap();
        for (script, expected) in [
            ("stat -c '%U %G' in.txt d d/sub/f", "kiln kiln\nkiln kiln\nkiln kiln"),
            ("chmod -R u+w d && find d | sort | tr '\\n' ' '", "d d/g d/sub d/sub/f"),
            ("chmod -R go-rwx d && stat -c %a d/g", "600"),
            ("ln in.txt x && cat x", "3"),
            ("cp -L in.txt o && echo more >> o && cat o", "3\nmore"),
            ("cp -a d e && echo x > e/g && cat d/g", "2"),
            ("touch -d 2001-01-01 in.txt && stat -c %y in.txt | cut -c1-4", "2001"),
            ("sed -i s/3/4/ in.txt && cat in.txt && echo 5 >> d/g && cat d/g", "4\n25"),
            ("mv d e && find e | sort | tr '\\n' ' '", "e e/g e/sub e/sub/f"),
            ("mkdir n && mv d/sub n && cat n/sub/f && rm -r d && ls", "1in.txt\nn"),
        ] {
            assert_eq!(slot.sh(script).await.succeeded(), expected, "{script}");
        }
        let git = "git init -q . && git add . && git -c user.name=a -c user.email=a@b commit -qm x && git mv d/g h \
                   && git status --short";
        if std::path::Path::new("/usr/bin/git").exists() {
            let mut spec = slot.shell(git);
            spec.environment.push((b"HOME".to_vec(), b"/tmp".to_vec()));
            assert_eq!(slot.run(&spec).await.succeeded(), "R  d/g -> h");
        }
        for (path, content) in [("d/sub/f", "1"), ("d/g", "2"), ("in.txt", "3\n")] {
            assert_eq!(fs::read_to_string(slot.inputs().join(path)).unwrap(), content);
        }
        let after = fs::metadata(slot.inputs().join("in.txt")).unwrap();
        let of = |metadata: &fs::Metadata| (metadata.uid(), metadata.mode(), metadata.mtime());
        assert_eq!(of(&before), of(&after));
        // A check that runs as somebody else, or with copies, sees its own as well.
        for condition in [Condition::User, Condition::FileOrder, Condition::ModificationTimes] {
            let mut spec = slot.shell("chmod -R u+w d && echo 5 >> d/g && cat d/g");
            spec.conditions = [condition].into_iter().collect();
            assert_eq!(slot.run(&spec).await.succeeded(), "25", "{condition:?}");
        }
    }

    async fn who_has_used_up_its_processes_is_told_and_goes_on(slot: &mut Fixture) {
        input(slot, "d/f", "1");
        let python = "
import errno, os, signal
children = []
while True:
    try:
        child = os.fork()
    except OSError as error:
        break
    if child == 0:
        signal.pause()
    children.append(child)
try:
    os.rename('d', 'e')
except OSError as error:
    # Where a cgroup counts processes, what renames for the action is one of them.
    assert error.errno == errno.EXDEV, error
    os.kill(children.pop(), signal.SIGKILL)
    os.wait()
    os.rename('d', 'e')
print(os.listdir('e'))
";
        let ran = slot.run(&slot.command(&["python3", "-c", python])).await;
        assert_eq!(ran.succeeded(), "['f']");
    }

    async fn directories_of_inputs_can_be_renamed(slot: &mut Fixture) {
        input(slot, "d/sub/deep/f", "1");
        input(slot, "d/sub/run", "2");
        input(slot, "d/g", "3");
        input(slot, "other/h", "4");
        let python = "
import errno, os
def fails(expected, old, new):
    try:
        os.rename(old, new)
    except OSError as error:
        assert error.errno == expected, (old, new, error)
    else:
        raise AssertionError((old, new))
os.chmod('d/sub', 0o750)
os.chmod('d/sub/run', 0o755)
held = open('d/sub/run', 'a')
os.makedirs('out/full/x'); os.mkdir('out/empty'); os.symlink('d', 'link')
fails(errno.ENOENT, 'nothing', 'out/n')
fails(errno.ENOTEMPTY, 'd/sub', 'out/full')
fails(errno.ENOTDIR, 'd/sub', 'd/g')
fails(errno.EINVAL, 'd', 'd/sub/d')
fails(errno.EXDEV, 'd/sub', '/tmp/sub')
os.rename('d', 'd')
os.rename('d/sub', 'out/empty/')
held.write('more'); held.flush()
assert oct(os.stat('out/empty').st_mode) == '0o40750'
assert os.stat('out/empty').st_mtime == os.stat('out/empty/deep').st_mtime == 1e6
assert oct(os.stat('out/empty/run').st_mode) == '0o100755'
assert open('out/empty/run').read() == '2more'
there = os.open('out', os.O_RDONLY)
os.rename(os.path.abspath('d'), 'moved', dst_dir_fd=there)
os.rename('other', 'd')
os.rename('d', 'd2'); os.rename('link', 'link2')
for root, directories, files in sorted(os.walk('.')):
    print(root, sorted(directories + files))
";
        for directory in ["d/sub", "d/sub/deep"] {
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
            fs::File::open(slot.inputs().join(directory)).unwrap().set_modified(time).unwrap();
        }
        let ran = slot.run(&slot.command(&["python3", "-c", python])).await;
        let expected = [
            ". ['d2', 'link2', 'out']", "./d2 ['h']", "./out ['empty', 'full', 'moved']",
            "./out/empty ['deep', 'run']", "./out/empty/deep ['f']", "./out/full ['x']", "./out/full/x []",
            "./out/moved ['g']",
        ];
        assert_eq!(ran.succeeded(), expected.join("\n"));
        // The outputs are where the worker collects them, and the cache of inputs has nothing of them.
        assert_eq!(ran.output("out/empty/deep/f").unwrap(), "1");
        assert_eq!(ran.output("d/g").unwrap_err(), nix::errno::Errno::ENOENT);
        assert_eq!(fs::read_to_string(slot.inputs().join("d/sub/run")).unwrap(), "2");
        assert_eq!(fs::read_dir(slot.inputs()).unwrap().count(), 2);
    }

    async fn a_rename_that_finds_no_room_changes_nothing(slot: &mut Fixture) {
        for name in ["a", "b", "c"] {
            input(slot, &format!("d/x/{name}"), &"x".repeat(1 << 20));
        }
        let python = "
import os
try:
    os.rename('d', 'e')
except OSError as error:
    print(error.strerror, sorted(os.listdir('.')), sorted(os.listdir('d/x')))
";
        let mut spec = slot.command(&["python3", "-c", python]);
        spec.limits.disk_bytes = Some(2 << 20);
        let ran = slot.run(&spec).await;
        assert_eq!(ran.stdout.trim_end(), "No space left on device ['d'] ['a', 'b', 'c']", "{}", ran.stderr);
    }

    async fn large_directories_are_renamed_soon_and_an_action_that_ends_meanwhile_ends(slot: &mut Fixture) {
        for number in 0..10_000 {
            fs::create_dir_all(slot.inputs().join("d")).unwrap();
            fs::write(slot.inputs().join(format!("d/{number}")), "").unwrap();
        }
        fs::set_permissions(slot.inputs().join("d"), PermissionsExt::from_mode(0o777)).unwrap();
        let python = "import os; os.rename('d', 'e'); print(len(os.listdir('e')))";
        let mut spec = slot.command(&["python3", "-c", python]);
        spec.limits.disk_bytes = Some(256 << 20);
        let begun = std::time::Instant::now();
        assert_eq!(slot.run(&spec).await.succeeded(), "10000");
        eprintln!("10,000 files: {:?}", begun.elapsed());
        let script = "python3 -c \"import os; os.rename('d', 'e')\" & sleep 0.05";
        let mut spec = slot.shell(script);
        spec.limits.disk_bytes = Some(256 << 20);
        slot.run(&spec).await.succeeded();
        slot.sh("ls d | wc -l").await.succeeded();
    }

    async fn what_programs_read_of_the_machine_is_there(slot: &mut Fixture) {
        for script in ["lscpu > /dev/null", "cat /sys/devices/system/cpu/possible", "ls -d /run /home /var/run/.",
                       ". /etc/os-release && test -n \"$ID\""] {
            slot.sh(script).await.succeeded();
        }
        assert_eq!(slot.sh("ls /sys/class/net; cat /sys/class/net/lo/mtu").await.succeeded(), "lo\n65536");
        assert_eq!(slot.sh("ls /sys").await.succeeded(), "class\ndevices\nkernel");
        let refused = "cd /sys; ! touch x && ! touch class/net/x && ! echo 0 > devices/system/cpu/cpu0/online";
        slot.sh(&format!("({refused}) 2>/dev/null")).await.succeeded();
        let mut spec = slot.shell("ls /sys/class/net");
        spec.network = true;
        slot.run(&spec).await.succeeded();
        let mut spec = slot.shell("true");
        spec.root = RootFs::Empty;
        assert_eq!(slot.run(&spec).await.ending, Ending::Exited(127));
    }
}

/// A program at 0x10000 that is `code` and nothing else.
fn elf32(code: &[u8]) -> Vec<u8> {
    const AT: u32 = 0x1_0000;
    const HEADERS: u32 = 52 + 32;
    let size = HEADERS + u32::try_from(code.len()).unwrap();
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // Executable, 80386, version 1, entry, program headers at 52, no sections, no flags.
    for half in [2_u16, 3] {
        file.extend(half.to_le_bytes());
    }
    for word in [1, AT + HEADERS, 52, 0, 0] {
        file.extend(u32::to_le_bytes(word));
    }
    for half in [52_u16, 32, 1, 40, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // Load all of it, readable and executable.
    for word in [1, 0, AT, AT, size, size, 5, 0x1000] {
        file.extend(u32::to_le_bytes(word));
    }
    file.extend_from_slice(code);
    file
}

/// A program that does `write(1, "32", 2); exit(7)`, all by `int 0x80`.
const HELLO: [u8; 37] = *b"\x6a\x00\x68\x33\x32\x00\x00\
    \xb8\x04\x00\x00\x00\xbb\x01\x00\x00\x00\x89\xe1\xba\x02\x00\x00\x00\xcd\x80\
    \x31\xc0\xb0\x01\xb3\x07\xcd\x80\x90\x90\x90";

/// A program that makes system call `number` and exits with what it returned, negated.
fn fails_with(number: u32, arguments: [u32; 3]) -> Vec<u8> {
    let mut code = Vec::new();
    // mov eax, ebx, ecx, edx; int 0x80
    let registers = [0xb8, 0xbb, 0xb9, 0xba];
    for (register, value) in registers.into_iter().zip([number].into_iter().chain(arguments)) {
        code.push(register);
        code.extend(value.to_le_bytes());
    }
    code.extend(*b"\xcd\x80");
    // neg eax; mov ebx, eax; mov eax, 1; int 0x80
    code.extend(*b"\xf7\xd8\x89\xc3\xb8\x01\x00\x00\x00\xcd\x80");
    code
}

/// Locks on what a slot shares with others would tell them something.
#[test]
fn device_nodes_are_the_slots_own_where_root_makes_them() {
    crate::harness::as_root(|| {
        crate::harness::block_on(async {
            let mut slot = Fixture::new().await;
            let ran = slot.sh("stat -c '%n %t:%T %a %U' /dev/null /dev/zero /dev/full /dev/random /dev/urandom").await;
            let expected = ["null 1:3", "zero 1:5", "full 1:7", "random 1:8", "urandom 1:9"]
                .map(|node| format!("/dev/{node} 666 root"));
            assert_eq!(ran.succeeded(), expected.join("\n"));
            let inode = slot.sh("stat -c '%d %i' /dev/null").await.succeeded().to_owned();
            let machine = fs::metadata("/dev/null").unwrap();
            assert_ne!(inode, format!("{} {}", machine.dev(), machine.ino()));
            let lock = fs::File::open("/dev/null").unwrap();
            let _held = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock)
                .expect("nobody holds it");
            slot.sh("flock -n -x /dev/null true && ! touch /dev/null 2>/dev/null")
                .await
                .succeeded();
            slot.stop().await;
        });
    });
}
