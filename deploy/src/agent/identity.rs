//! What tells two hosts of one name apart.

use std::io;
use std::path::Path;

use ring::rand::{SecureRandom as _, SystemRandom};

use super::disk::{read_if_there, write_whole};
use crate::encoding::{hex, is_hex};

/// Bytes of an identity.
const LENGTH: usize = 16;

/// The identity of an agent's directory: made when it is asked for first.
pub fn identity(root: &Path) -> io::Result<String> {
    let path = root.join("identity");
    let known = read_if_there(&path, 2 * LENGTH)?.and_then(|it| String::from_utf8(it).ok());
    if let Some(known) = known.filter(|it| is_hex(it, 2 * LENGTH)) {
        return Ok(known);
    }
    let mut random = [0; LENGTH];
    SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("no random bytes"))?;
    let made = hex(&random);
    write_whole(&path, made.as_bytes())?;
    Ok(made)
}
