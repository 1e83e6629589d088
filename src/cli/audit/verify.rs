//! `kiln audit export` and `kiln audit verify`.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use kiln_deploy::audit::{Broken, MAX_LINE, Report, Verifier};
use kiln_deploy::signing::KeyRing;
use kiln_deploy::signing::keys::Secrets as _;
use kiln_net::causes;
use serde_json::{Value, json};

use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::release::now;
use crate::cli::target::Target;
use crate::cli::text;
use crate::config::Machine;
use kiln_web::format::counted;
use kiln_web::json::AuditExport;

/// Bytes of a key, or of a policy of keys.
const MAX_KEY_BYTES: u64 = 1 << 20;

/// Print the audit log in lines of JSON, oldest first
///
/// Each line is an entry, or a checkpoint that the server signed. scripts/verify-audit.py verifies them with nothing of Kiln:
/// Python and OpenSSL alone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln audit export > audit.jsonl
  kiln audit export --after 12345 >> audit.jsonl
  kiln audit verify audit.jsonl --key server.pub")]
pub struct Export {
    /// Only what comes after this entry
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after: u64,
}

/// Verify the audit log
///
/// Without FILE, all of the server's log is read and verified here: the server is not believed. Each entry must hash to what it
/// says and name the one before it; with --key, signed checkpoints must name the entries that are there. What was changed, is
/// missing, stands elsewhere or was cut off is named.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln audit verify
  kiln audit verify --key server.pub
  kiln audit verify audit.jsonl --key server.pub --head 1234:7f3a…

Keep the head that is printed somewhere else: given with --head, it shows later whether the end was cut off.")]
pub struct Verify {
    /// What `kiln audit export` wrote
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// Whose checkpoints count: a public key in PEM, or a policy of keys in JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    key: Option<PathBuf>,
    /// An entry that is known to have been there, as NUMBER:HASH
    #[arg(long, value_name = "NUMBER:HASH", value_parser = head)]
    head: Option<(u64, [u8; 32])>,
    /// For programs
    #[arg(long)]
    json: bool,
}

fn head(text: &str) -> Result<(u64, [u8; 32]), String> {
    let wrong = || "write a number and 64 hexadecimal digits: 1234:7f3a…".to_owned();
    let (number, hash) = text.split_once(':').ok_or_else(wrong)?;
    let number = number.parse().map_err(|_| wrong())?;
    let mut bytes = [0; 32];
    if hash.len() != 64 || !hash.is_ascii() {
        return Err(wrong());
    }
    for (byte, digits) in bytes.iter_mut().zip(hash.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
    }
    Ok((number, bytes))
}

/// Hands each line of the server's log to `each`, until that says no.
async fn lines(
    server: &Api,
    after: u64,
    mut each: impl FnMut(Vec<u8>) -> Result<bool, CliError>,
) -> Result<(), CliError> {
    let mut next = Some(after);
    while let Some(after) = next {
        let answer = server.get(&format!("/audit/export?after={after}")).await?;
        let page: AuditExport = api::read(answer)?;
        for line in &page.lines {
            let line = serde_json::to_vec(line).map_err(|it| CliError::machine(it.to_string()))?;
            if !each(line)? {
                return Ok(());
            }
        }
        next = page.next_after.filter(|it| *it > after);
    }
    Ok(())
}

impl Export {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let server = Api::new(target)?;
        let print = |mut line: Vec<u8>| {
            line.push(b'\n');
            text::write_out(&line).map(|()| true)
        };
        lines(&server, self.after, print).await?;
        Ok(Exit::Done)
    }
}

impl Verify {
    pub async fn run(
        self,
        target: impl FnOnce() -> Result<Target, CliError>,
    ) -> Result<Exit, CliError> {
        let keys = self.key.as_deref().map(read_keys).transpose()?;
        let mut verifier = Verifier::new(keys.as_ref(), self.head, now());
        let mut broken = None;
        let mut each = |line: &[u8]| {
            broken = verifier.line(line).err();
            broken.is_none()
        };
        match &self.file {
            Some(path) => read_lines(path, &mut each)?,
            None => lines(&Api::new(&target()?)?, 0, |line| Ok(each(&line))).await?,
        }
        let verified = match broken {
            Some(broken) => Err(broken),
            None => verifier.finish(),
        };
        self.say(verified)
    }

    fn say(&self, verified: Result<Report, Broken>) -> Result<Exit, CliError> {
        match (verified, self.json) {
            (Ok(it), true) => text::print_json(&held(&it))?,
            (Ok(it), false) => text::print(&report(&it))?,
            (Err(error), json) => {
                let said = causes::chain(&error);
                match json {
                    true => text::print_json(&json!({"verified": false, "broken": said}))?,
                    false => text::print(&format!("{said}\n"))?,
                }
                return Ok(Exit::Negative);
            }
        }
        Ok(Exit::Done)
    }
}

fn held(it: &Report) -> Value {
    json!({
        "verified": true,
        "first": it.first,
        "last": it.last,
        "head": format!("{}:{}", it.last, it.head),
        "checkpoints": it.checkpoints,
        "signed": it.signed,
    })
}

fn report(it: &Report) -> String {
    let signed = match it.signed {
        Some(signed) => {
            format!("signed up to {signed}, by {}", counted(it.checkpoints as u64, "checkpoint"))
        }
        None => "nothing of it is signed: give --key".to_owned(),
    };
    format!("entries {} to {} hold, {signed}\nhead {}:{}\n", it.first, it.last, it.last, it.head)
}

fn read_lines(path: &Path, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        CliError::usage(format!("cannot read {}: {error}", path.display()))
            .hint("`kiln audit export` writes what is verified here")
    };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    loop {
        let mut line = Vec::new();
        let mut part = reader.by_ref().take(MAX_LINE as u64 + 2);
        if part.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            return Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if !each(&line) {
            return Ok(());
        }
    }
}

fn read_keys(path: &Path) -> Result<KeyRing, CliError> {
    let failed =
        |error: std::io::Error| CliError::usage(format!("cannot read {}: {error}", path.display()));
    let text = Machine.file(path, MAX_KEY_BYTES).map_err(failed)?;
    KeyRing::read("server", &text).map_err(|error| {
        CliError::usage(format!("{}: {}", path.display(), causes::chain(&error)))
            .hint("docs/releases.md says how keys and policies of keys look")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_a_number_and_a_hash() {
        let hash = "ab".repeat(32);
        assert_eq!(head(&format!("7:{hash}")), Ok((7, [0xab; 32])));
        for wrong in ["", "7", ":", "7:ab", &format!("x:{hash}"), &format!("7:{}", "zz".repeat(32))]
        {
            assert!(head(wrong).is_err(), "{wrong}");
        }
    }
}
