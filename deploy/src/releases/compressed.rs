//! Layers as images have them: plain, or compressed by gzip or zstd.

use std::io::{self, BufReader, Read};

/// What to read a layer through, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// The compression of a layer that holds files, by its media type; `None` for anything else.
    pub fn of(media_type: &str) -> Option<Self> {
        match media_type {
            "application/vnd.oci.image.layer.v1.tar" => Some(Self::None),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Some(Self::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The uncompressed bytes, as they are read.
    pub fn reader<'a>(self, layer: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::None => Box::new(BufReader::new(layer)),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(layer))),
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(BufReader::new(layer))?),
        })
    }
}
