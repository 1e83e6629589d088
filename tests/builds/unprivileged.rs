//! An ordinary user runs the whole system: Kiln names what the machine does not grant, and everything else works.

use crate::support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use support::reapi::{Client, Spec, output_text};
use support::server::{Server, program};

const NOBODY: &str = "65534";

/// Makes the command `kiln serve` for an ordinary user: the user nobody where root runs the tests, otherwise the
/// tests' own. It copies the binary to `place` and opens that to everybody, so that the user nobody can read it.
fn as_nobody(place: &Path, arguments: &[&str]) -> Command {
    let kiln = place.join("kiln");
    std::fs::copy(env!("CARGO_BIN_EXE_kiln"), &kiln).expect("the binary can be copied");
    let everybody = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(place, everybody.clone()).expect("the place can be opened");
    std::fs::set_permissions(&kiln, everybody).expect("the binary can be opened");
    let data = place.join("data");
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(&kiln);
        command
    } else {
        Command::new(&kiln)
    };
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data).args(arguments);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_run_in_the_sandbox_of_an_ordinary_user() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let server = Server::spawn(as_nobody(place.path(), &[]), place.path());
    let client = Client::connect(&server.url()).await;
    let script = "id -u; hostname; ls /proc | grep -c '^[0-9]'; touch /usr/x 2>/dev/null || echo ro; \
                  echo made > out";
    let response = client.execute(&Spec::shell(script, &["out"])).await.expect("an answer");
    let result = response.result.expect("a result");
    let (stdout, stderr) = output_text(&client, &result).await;
    assert_eq!(result.exit_code, 0, "{stdout}{stderr}");
    let lines: Vec<_> = stdout.lines().collect();
    assert_ne!(lines[0], "0", "not root inside either");
    assert_eq!(lines[1], "kiln");
    assert!(lines[2].parse::<u32>().expect("a count") < 10, "only its own processes: {stdout}");
    assert_eq!(lines[3], "ro");
    assert_eq!(result.output_files.len(), 1);
}

/// Root may read every closed directory, but the ordinary user as whom the actions run may not.
#[tokio::test(flavor = "multi_thread")]
async fn outputs_behind_closed_directories_are_found() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let server = Server::spawn(as_nobody(place.path(), &[]), place.path());
    let client = Client::connect(&server.url()).await;
    let script = "echo made > a/b/out; mkdir -p tree/x; echo in > tree/x/y; chmod 0 tree/x tree; \
                  chmod 0 a/b; chmod 0 a; rm -r gone/b; chmod 0 gone .";
    let outputs = ["a/b/out", "tree", "a/b/none", "gone/b/c/none"];
    let response = client.execute(&Spec::shell(script, &outputs)).await.expect("an answer");
    let result = response.result.expect("a result");
    assert_eq!(result.exit_code, 0, "{}", response.message);
    assert_eq!(result.output_files.len(), 1, "{result:?}");
    assert_eq!(client.read(result.output_files[0].digest.as_ref().unwrap()).await, b"made\n");
    assert_eq!(result.output_directories.len(), 1, "{result:?}");
}

/// The machine's own Python. Another one may lie in a home directory, which not everybody can read.
const PYTHON: &str = "/usr/bin/python3";

/// Starts the program that its arguments name, with every attribute of the process unlike what a shell gives.
const HOSTILE: &str = r#"
import ctypes, os, resource, signal, sys
libc = ctypes.CDLL(None)
os.umask(0o077)
for number in [signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM, signal.SIGTSTP, 40]:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGWINCH, 41])
R = resource
for limit, soft in [(R.RLIMIT_STACK, 1 << 20), (R.RLIMIT_NOFILE, 1000), (R.RLIMIT_CPU, 3600), (R.RLIMIT_FSIZE, 1 << 33),
                    (R.RLIMIT_SIGPENDING, 1000), (R.RLIMIT_MSGQUEUE, 1000), (R.RLIMIT_MEMLOCK, 0), (R.RLIMIT_NPROC, 3000),
                    (R.RLIMIT_DATA, 1 << 40)]:
    R.setrlimit(limit, (soft, R.getrlimit(limit)[1]))
root = os.geteuid() == 0
open('/proc/self/oom_score_adj', 'w').write('900' if root else '300')
if root:
    os.nice(5)
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
os.system('ionice -c 3 -p %d' % os.getpid())
libc.prctl(29, ctypes.c_ulong(1000000), 0, 0, 0)
libc.prctl(41, 1, 0, 0, 0)
libc.prctl(67, 1, 0, 0, 0)
libc.personality(0x0040000)
open('/proc/self/coredump_filter', 'w').write('0x1')
os.dup2(os.open('/etc/passwd', os.O_RDONLY), 77, inheritable=True)
os.environ.update(KILN_TOKEN='kiln_secret', LANG='tr_TR.UTF-8', LC_ALL='C.UTF-8', TZ='Asia/Tokyo', SECRET='secret')
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// Prints every attribute that an action could inherit from whoever started the server.
const INHERITED: &str = r"
umask
cat /proc/self/status > status
grep -E '^(SigPnd|ShdPnd|SigBlk|SigIgn|SigCgt|NoNewPrivs|THP_enabled|Cap...):' status | tr -d '\t'
sed -n '2,$p' /proc/self/limits | tr -s ' ' | sed 's/ $//'
cat /proc/self/oom_score_adj /proc/self/coredump_filter /proc/self/personality /proc/self/timerslack_ns
nice; chrt -p $$ | head -1 | cut -d: -f2; ionice -p $$; ls /proc/self/fd
cut -d: -f3 /proc/self/cgroup | sort -u
grep -s ksm_merge_any /proc/self/ksm_stat || echo ksm_merge_any: no
cut -d' ' -f5-8 /proc/$$/stat; tty; env; date +%Z; hostname; cat /proc/self/loginuid; echo
";

/// What an action prints, which is the same whoever starts the server and however it is started.
const EXPECTED: &str = "0022
THP_enabled:1
SigPnd:0000000000000000
ShdPnd:0000000000000000
SigBlk:0000000000000000
SigIgn:0000000000000000
SigCgt:0000000000000000
CapInh:0000000000000000
CapPrm:0000000000000000
CapEff:0000000000000000
CapBnd:0000000000000000
CapAmb:0000000000000000
NoNewPrivs:1
Max cpu time unlimited unlimited seconds
Max file size unlimited unlimited bytes
Max data size unlimited unlimited bytes
Max stack size 8388608 unlimited bytes
Max core file size 0 0 bytes
Max resident set unlimited unlimited bytes
Max processes 8194 8194 processes
Max open files 16384 16384 files
Max locked memory 8388608 8388608 bytes
Max address space unlimited unlimited bytes
Max file locks unlimited unlimited locks
Max pending signals 8192 8192 signals
Max msgqueue size 819200 819200 bytes
Max nice priority 0 0
Max realtime priority 0 0
Max realtime timeout unlimited unlimited us
500
00000033
00000000
50000
0
 SCHED_OTHER
none: prio 0
0
1
2
3
/
ksm_merge_any: no
2 2 0 -1
not a tty
PWD=/kiln/root
UTC
kiln
";

fn own_niceness() -> String {
    let output = Command::new("nice").output().expect("nice runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_whoever_starts_the_server_reaches_an_action() {
    let root = nix::unistd::geteuid().is_root();
    for ordinary in [false, true] {
        if !root && !ordinary {
            continue; // The half that needs root.
        }
        let place = tempfile::tempdir().expect("a temporary directory");
        let start = as_nobody(place.path(), &["--workers", "1"]);
        let mut command = Command::new(if ordinary && root { "setpriv" } else { PYTHON });
        if ordinary && root {
            command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", PYTHON]);
        }
        command.args(["-c", HOSTILE]).arg(place.path().join("kiln"));
        let arguments = start.get_args().skip_while(|argument| *argument != "serve");
        command.args(arguments);
        let server = Server::spawn(command, place.path());
        let client = Client::connect(&server.url()).await;
        let mut spec = Spec::shell(INHERITED, &[]);
        spec.command.environment_variables.clear();
        let response = client.execute(&spec).await.expect("an answer");
        let (stdout, stderr) = output_text(&client, &response.result.expect("a result")).await;
        // Where there are no cgroups, a limit of the process replaces that of the action.
        let memory = stdout.lines().find(|line| line.starts_with("Max data size")).unwrap_or("");
        let (path, login) =
            ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n", "4294967295\n");
        let seen = stdout
            .replace(memory, "Max data size unlimited unlimited bytes")
            .replace("Max processes 4098 4098", "Max processes 8194 8194")
            .replace(path, "")
            .replace(login, "");
        // Only root can raise a priority again that the user who runs the tests has lowered.
        let nice = if ordinary { own_niceness() } else { "0".to_owned() };
        let expected = EXPECTED.replace("\n50000\n0\n", &format!("\n50000\n{nice}\n"));
        assert_eq!(seen.trim_end(), expected.trim_end(), "ordinary user: {ordinary}; {stderr}");

        let data = place.path().join("data").metadata().expect("a data directory");
        assert_eq!(data.permissions().mode() & 0o777, 0o700);
        for zygote in zygotes(server.id()) {
            let environment = std::fs::read(format!("/proc/{zygote}/environ"));
            assert_eq!(environment.ok().as_deref(), Some(&b""[..]), "the sandbox's own process");
        }
    }
}

fn zygotes(server: u32) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for task in
        std::fs::read_dir(format!("/proc/{server}/task")).expect("the server runs").flatten()
    {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(children.split_whitespace().map(str::to_owned));
    }
    assert!(!found.is_empty(), "no child of the server");
    found
}

#[test]
fn a_sandbox_that_is_required_and_not_there_refuses_to_start() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let best = program(as_nobody(place.path(), &["--workers", "0"]));
    assert!(best.is_none(), "without workers there is nothing to enforce");
    let refusal = program(as_nobody(place.path(), &["--sandbox", "required"]));
    let Some((code, text)) = refusal else {
        // A machine that delegates cgroups to the user nobody can enforce every limit, so Kiln refuses nothing.
        return;
    };
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("cannot enforce"), "{text}");
    assert!(text.contains("--sandbox=best-effort"), "says what to do: {text}");
}

/// The machine looks like a container whose runtime hides parts of /proc.
#[test]
fn a_machine_on_which_no_action_could_run_gets_no_worker() {
    if !nix::unistd::geteuid().is_root() {
        return; // Only root can hide a part of /proc.
    }
    let place = tempfile::tempdir().expect("a temporary directory");
    let kiln = as_nobody(place.path(), &[]);
    let mut command = Command::new("unshare");
    let hide = "mount -t tmpfs none /proc/fs && exec \"$@\"";
    command.args(["--mount", "sh", "-c", hide, "sh"]).arg(kiln.get_program());
    command.args(kiln.get_args());
    let (code, text) = program(command).expect("it does not start");
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("mount /proc"), "{text}");
    assert!(text.contains("hint:") && text.contains("--workers 0"), "{text}");
}
