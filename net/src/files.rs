//! Files that somebody names: configuration, keys, tokens. They are read whole, so they have to be something
//! that ends.

use std::fs::{self, File, FileType};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Largest one in bytes. All authorities that a system trusts are a quarter of a megabyte.
const MAX_FILE: u64 = 16 << 20;

/// The content of a regular file. Errors: it is something else, is too large, or cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    // Before it is opened: a pipe would wait for whoever writes, and a device may act on it.
    check(fs::metadata(path)?.file_type())?;
    let file = File::open(path)?;
    check(file.metadata()?.file_type())?;
    let mut content = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut content)?;
    match content.len() as u64 > MAX_FILE {
        true => Err(invalid(format!("it is larger than {} MiB", MAX_FILE >> 20))),
        false => Ok(content),
    }
}

/// The content of a regular file as text. Errors: those of [`read`], and where it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|_| invalid("it is not text in UTF-8".to_owned()))
}

fn check(kind: FileType) -> Result<()> {
    if kind.is_file() {
        return Ok(());
    }
    let kinds = [
        (kind.is_dir(), "a directory"),
        (kind.is_fifo(), "a pipe, which could be read only once"),
        (kind.is_socket(), "a socket"),
    ];
    let what = kinds.into_iter().find(|(is, _)| *is).map_or("a device", |(_, what)| what);
    Err(invalid(format!("it is {what}, and no regular file")))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_what_ends_is_read() {
        let dir = std::env::temp_dir().join(format!("kiln-files-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let at = |name: &str| dir.join(name);
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        let _listener = UnixListener::bind(at("socket")).unwrap();
        File::create(at("large")).unwrap().set_len(MAX_FILE + 1).unwrap();
        fs::write(at("binary"), [0xff]).unwrap();
        fs::write(at("text"), "text").unwrap();
        std::os::unix::fs::symlink("text", at("link")).unwrap();
        let refused = [
            ("pipe", "it is a pipe"),
            ("socket", "it is a socket"),
            ("", "it is a directory"),
            ("/dev/zero", "it is a device"),
            ("large", "it is larger than 16 MiB"),
            ("binary", "not text"),
        ];
        for (name, words) in refused {
            let error = read_text(&at(name)).unwrap_err().to_string();
            assert!(error.contains(words), "{name}: {error}");
        }
        assert_eq!(read_text(&at("none")).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(read_text(&at("link")).unwrap(), "text");
        fs::remove_dir_all(&dir).unwrap();
    }
}
