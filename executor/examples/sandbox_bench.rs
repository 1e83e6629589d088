//! Measures one slot: `cargo run --release -p kiln-executor --example sandbox_bench -- [RUNS] [LOWER_DIR]`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kiln_executor::sandbox::{CommandSpec, Limits, RootFs, Slot, SlotConfig, zygote_main};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const ZYGOTE: &str = "sandbox-zygote";
const WARM_UP: usize = 50;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(ZYGOTE) {
        return zygote_main();
    }
    match measure_all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure_all() -> Result<(), Box<dyn Error>> {
    let runs = std::env::args().nth(1).map_or(Ok(1000), |count| count.parse())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let dir = tempfile::tempdir()?;
        let lower = dir.path().join("inputs");
        std::fs::create_dir(&lower)?;
        for number in 0..200 {
            std::fs::write(lower.join(number.to_string()), "input")?;
        }
        let config = SlotConfig {
            scratch_dir: dir.path().join("scratch"),
            input_dirs: vec![dir.path().to_owned()],
            zygote_command: vec!["/proc/self/exe".into(), ZYGOTE.into()],
            ..SlotConfig::default()
        };
        let mut slot = Slot::start(config).await?;
        for sentence in slot.capabilities().not_enforced() {
            println!("not enforced: {sentence}");
        }
        for (name, arguments, lower) in [
            ("/bin/true, no inputs", &["/bin/true"][..], None),
            ("/bin/true over 200 files", &["/bin/true"], Some(lower.as_path())),
            ("sh -c 'echo > out' over 200 files", &["/bin/sh", "-c", "echo > out"], Some(&lower)),
        ] {
            report(name, &mut measure(&mut slot, arguments, lower, runs).await?);
        }
        report("fork and exec of /bin/true alone", &mut floor(runs).await?);
        slot.stop().await;
        Ok(())
    })
}

async fn measure(
    slot: &mut Slot,
    arguments: &[&str],
    lower: Option<&Path>,
    runs: usize,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let spec = CommandSpec {
        arguments: arguments.iter().map(|text| text.as_bytes().to_vec()).collect(),
        environment: vec![(b"PATH".to_vec(), b"/usr/bin:/bin".to_vec())],
        working_directory: String::new(),
        lower: lower.map(PathBuf::from).into_iter().collect(),
        directories: Vec::new(),
        writable: Vec::new(),
        root: RootFs::Host,
        network: false,
        timeout: Duration::from_secs(60),
        limits: Limits {
            memory_bytes: Some(1 << 30),
            processes: Some(512),
            disk_bytes: Some(1 << 30),
            output_bytes: Some(1 << 20),
            cpu_millis: None,
        },
        conditions: Default::default(),
    };
    let mut times = Vec::with_capacity(runs);
    for number in 0..runs + WARM_UP {
        let (sender, _receiver) = mpsc::channel(8);
        let start = Instant::now();
        slot.run(&spec, sender, CancellationToken::new()).await?;
        if number >= WARM_UP {
            times.push(start.elapsed());
        }
    }
    Ok(times)
}

async fn floor(runs: usize) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        tokio::process::Command::new("/bin/true").status().await?;
        times.push(start.elapsed());
    }
    Ok(times)
}

fn report(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: f64| {
        let index = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    println!(
        "{name:40} p50 {:.3} ms  p90 {:.3} ms  p99 {:.3} ms  best {:.3} ms",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.0)
    );
}
