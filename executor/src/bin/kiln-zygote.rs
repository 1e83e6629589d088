//! The sandbox's zygote alone, for tests and measurements; `kiln sandbox-zygote` is the same.

fn main() -> std::process::ExitCode {
    kiln_executor::sandbox::zygote_main()
}
