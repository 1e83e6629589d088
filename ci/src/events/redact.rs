//! Takes secrets out of command lines before these are kept.
//!
//! Bazel sends the whole environment of its client (`--client_env=`), the headers of its requests, and
//! whatever people pass in flags.

/// What stands for a value that is not kept.
pub const REDACTED: &str = "<redacted>";

/// Flags whose values are credentials, or may hold some.
const SECRET_FLAGS: [&str; 9] = [
    "bes_header",
    "remote_header",
    "remote_exec_header",
    "remote_cache_header",
    "remote_downloader_header",
    "google_credentials",
    "google_auth_scopes",
    "tls_client_key",
    "credential_helper",
];
/// Flags with `NAME=VALUE`, of which the name is told.
const VARIABLES: [&str; 7] =
    ["client_env", "action_env", "host_action_env", "test_env", "repo_env", "run_env", "define"];
/// Parts of names of variables whose values are not kept.
const SECRET_NAMES: [&str; 12] = [
    "token",
    "secret",
    "passw",
    "passphrase",
    "credential",
    "apikey",
    "api_key",
    "auth",
    "private",
    "cookie",
    "session",
    "key",
];

/// The arguments as they may be kept. The client's environment goes entirely.
pub fn arguments(args: &[String]) -> Vec<String> {
    let kept = args.iter().filter(|it| !is_client_environment(it));
    kept.map(|it| argument(it)).collect()
}

fn is_client_environment(argument: &str) -> bool {
    let flag = argument.trim_start_matches('-');
    flag.starts_with("client_env=") || flag == "client_env"
}

/// One argument of a command line without what is secret in it.
pub fn argument(argument: &str) -> String {
    let flag = argument.strip_prefix("--").unwrap_or("");
    let Some((flag, value)) = flag.split_once('=') else { return without_user(argument) };
    if SECRET_FLAGS.contains(&flag) {
        return format!("--{flag}={REDACTED}");
    }
    match value.split_once('=') {
        Some((name, _)) if VARIABLES.contains(&flag) && is_secret(name) => {
            format!("--{flag}={name}={REDACTED}")
        }
        _ if !VARIABLES.contains(&flag) && is_secret(flag) && !is_harmless(value) => {
            format!("--{flag}={REDACTED}")
        }
        _ => without_user(argument),
    }
}

/// Whether a variable of this name is likely to hold a secret.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

/// A value that is a switch, a number or a list of names tells nothing.
fn is_harmless(value: &str) -> bool {
    matches!(value, "" | "true" | "false" | "yes" | "no" | "auto" | "0" | "1")
}

/// `https://user:password@host` without the user.
pub fn without_user(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(['/', '?', '#', ' ', '"', '\'']).unwrap_or(after.len());
        let authority = &after[..end];
        match authority.rfind('@') {
            Some(user) => {
                out.push_str(REDACTED);
                out.push_str(&authority[user..]);
            }
            None => out.push_str(authority),
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        for (given, kept) in [
            ("--bes_header=Authorization=Bearer abc", "--bes_header=<redacted>"),
            ("--remote_header=x=y", "--remote_header=<redacted>"),
            ("--test_env=GITHUB_TOKEN=abc", "--test_env=GITHUB_TOKEN=<redacted>"),
            ("--test_env=LANG=C", "--test_env=LANG=C"),
            (
                "--action_env=AWS_SECRET_ACCESS_KEY=abc",
                "--action_env=AWS_SECRET_ACCESS_KEY=<redacted>",
            ),
            ("--my_api_key=abc", "--my_api_key=<redacted>"),
            ("--remote_cache=https://u:p@host/c", "--remote_cache=https://<redacted>@host/c"),
            ("--remote_cache=grpc://host:80", "--remote_cache=grpc://host:80"),
            (
                "--override_repository=x=https://a@b@host",
                "--override_repository=x=https://<redacted>@host",
            ),
            ("--keep_going", "--keep_going"),
            ("//a:key_test", "//a:key_test"),
            ("--incompatible_strict_action_env=true", "--incompatible_strict_action_env=true"),
        ] {
            assert_eq!(argument(given), kept, "{given}");
        }
    }

    #[test]
    fn the_environment_of_the_client_is_not_kept() {
        let args = ["test", "--client_env=HOME=/root", "--client_env=X=y", "//..."];
        assert_eq!(arguments(&args.map(str::to_owned)), ["test", "//..."]);
    }
}
