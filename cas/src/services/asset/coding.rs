//! Content codings (RFC 9110, section 8.4): an asset is what is left after they are undone.

use std::borrow::Cow;
use std::io;

use kiln_net::Url;
use kiln_net::http::header::{CONTENT_ENCODING, HeaderMap};

use super::gzip::Gzip;

/// Coded bytes that are decoded at a time: each may become a thousand.
const STEP: usize = 4 << 10;
/// What servers write into the header that is no coding. Some stores of objects keep `aws-chunked`, which is
/// about how an object was uploaded.
const NO_CODINGS: [&str; 6] = ["", "identity", "none", "binary", "utf-8", "aws-chunked"];

pub enum Coding {
    Identity,
    Gzip(Gzip),
}

impl std::fmt::Debug for Coding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_identity() { "identity" } else { "gzip" })
    }
}

impl Coding {
    /// `urls`: before and after redirections. Errors: a coding that cannot be undone.
    pub fn of(headers: &HeaderMap, urls: [&Url; 2]) -> Result<Self, String> {
        let values = headers.get_all(CONTENT_ENCODING).iter();
        let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()).to_lowercase());
        let all = values.collect::<Vec<_>>().join(",");
        let mut codings = all.split(',').map(str::trim).filter(|name| !NO_CODINGS.contains(name));
        match (codings.next(), codings.next()) {
            (None, _) => Ok(Self::Identity),
            // Many servers call the files that they hold compressed coded. Bazel takes those as they
            // are when it downloads by itself.
            (Some("gzip" | "x-gzip"), None) if urls.iter().any(|url| is_compressed(url)) => {
                Ok(Self::Identity)
            }
            (Some("gzip" | "x-gzip"), None) => Ok(Self::Gzip(Gzip::new())),
            _ => Err(all),
        }
    }

    pub fn is_identity(&self) -> bool {
        matches!(self, Self::Identity)
    }

    /// How many bytes may be decoded at a time.
    pub fn step(&self) -> usize {
        if self.is_identity() { usize::MAX } else { STEP }
    }

    /// Undoes the coding of the next bytes.
    pub fn decode<'a>(&mut self, data: &'a [u8]) -> io::Result<Cow<'a, [u8]>> {
        match self {
            Self::Identity => Ok(Cow::Borrowed(data)),
            Self::Gzip(gzip) => gzip.decode(data).map(Cow::Owned),
        }
    }

    /// The coded bytes have ended; what was kept back of the content. Errors: they are not whole.
    pub fn finish(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity => Ok(Vec::new()),
            Self::Gzip(gzip) => gzip.finish(),
        }
    }
}

/// Whether the file is a compressed one, by its name.
fn is_compressed(url: &Url) -> bool {
    let path = url.path().to_ascii_lowercase();
    [".gz", ".tgz"].iter().any(|end| path.ends_with(end))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use kiln_net::http::header::HeaderValue;
    use kiln_net::urls;

    use super::*;

    fn coding(names: &[&'static str], url: &str) -> Result<Coding, String> {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        let (plain, url) = (urls::parse("http://h/x").unwrap(), urls::parse(url).unwrap());
        Coding::of(&headers, [&plain, &url])
    }

    fn undone(coding: &mut Coding, data: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        for part in data.chunks(coding.step().min(3)) {
            all.extend_from_slice(&coding.decode(part)?);
        }
        all.extend(coding.finish()?);
        Ok(all)
    }

    fn zipped(data: &[u8]) -> Vec<u8> {
        let mut coded = Vec::new();
        let mut encoder = flate2::read::GzEncoder::new(data, flate2::Compression::fast());
        encoder.read_to_end(&mut coded).unwrap();
        coded
    }

    #[test]
    fn what_is_coded_is_decoded_and_what_cannot_be_is_refused() {
        assert!(coding(&[], "http://h/x").unwrap().is_identity());
        assert!(coding(&["identity"], "http://h/x").unwrap().is_identity());
        assert!(coding(&["gzip"], "http://h/x.tar.gz?y").unwrap().is_identity());
        for none in ["aws-chunked", "UTF-8", "none, binary"] {
            assert!(coding(&[none], "http://h/x").unwrap().is_identity(), "{none}");
        }
        assert!(!coding(&["aws-chunked,gzip"], "http://h/x").unwrap().is_identity());
        assert_eq!(coding(&["br"], "http://h/x").unwrap_err(), "br");
        assert_eq!(coding(&["gzip", "gzip"], "http://h/x").unwrap_err(), "gzip,gzip");

        let text = b"some text\n".repeat(10_000);
        let mut gzip = coding(&["X-GZip"], "http://h/x").unwrap();
        assert_eq!(undone(&mut gzip, &zipped(&text)).unwrap(), text);
        let mut two = coding(&["gzip"], "http://h/x").unwrap();
        let both = [zipped(b"one "), zipped(b"two")].concat();
        assert_eq!(undone(&mut two, &both).unwrap(), b"one two");
        for rest in [&[0_u8; 512][..], b"\n", b"\x1f", b"\x1f\x1f\x8b", b"no gzip"] {
            let mut padded = coding(&["gzip"], "http://h/x").unwrap();
            let body = [both.as_slice(), rest].concat();
            assert_eq!(undone(&mut padded, &body).unwrap(), b"one two", "{rest:?}");
        }
        let mut half = coding(&["gzip"], "http://h/x").unwrap();
        assert!(undone(&mut half, &both[..both.len() - 3]).is_err());
        let mut nothing = coding(&["gzip"], "http://h/x").unwrap();
        assert_eq!(undone(&mut nothing, b"").unwrap(), b"");
        let mut cut = coding(&["gzip"], "http://h/x").unwrap();
        let coded = zipped(&text);
        assert!(undone(&mut cut, &coded[..coded.len() - 9]).is_err());
        let mut wrong = coding(&["gzip"], "http://h/x").unwrap();
        assert!(undone(&mut wrong, b"this is no gzip").is_err());
    }
}
