//! Paths, arguments and variables on the wire as the bytes that they are: they need not be UTF-8, which
//! serde asks of paths, and are copied whole, not byte by byte as a list of numbers would be.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value that can be sent as a string of bytes.
pub(in crate::sandbox) trait Octets {
    fn as_octets(&self) -> &[u8];
    fn from_octets(octets: Vec<u8>) -> Self;
}

impl Octets for PathBuf {
    fn as_octets(&self) -> &[u8] {
        self.as_os_str().as_bytes()
    }

    fn from_octets(octets: Vec<u8>) -> Self {
        OsString::from_vec(octets).into()
    }
}

impl Octets for Vec<u8> {
    fn as_octets(&self) -> &[u8] {
        self
    }

    fn from_octets(octets: Vec<u8>) -> Self {
        octets
    }
}

struct Wire<'a>(Cow<'a, [u8]>);

impl<'a> Wire<'a> {
    fn of(value: &'a impl Octets) -> Self {
        Self(Cow::Borrowed(value.as_octets()))
    }

    fn into_value<T: Octets>(self) -> T {
        T::from_octets(self.0.into_owned())
    }
}

impl Serialize for Wire<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Wire<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(Borrow).map(|octets| Self(Cow::Borrowed(octets)))
    }
}

struct Borrow;

impl<'de> Visitor<'de> for Borrow {
    type Value = &'de [u8];

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("bytes")
    }

    fn visit_borrowed_bytes<E: Error>(self, octets: &'de [u8]) -> Result<Self::Value, E> {
        Ok(octets)
    }
}

/// Sends one value as bytes.
pub(in crate::sandbox) mod path {
    use super::*;

    pub(in crate::sandbox) fn serialize<S: Serializer>(
        value: &impl Octets,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Wire::of(value).serialize(serializer)
    }

    pub(in crate::sandbox) fn deserialize<'de, T: Octets, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        Wire::deserialize(deserializer).map(Wire::into_value)
    }
}

/// Sends a list of values, each as bytes.
pub(in crate::sandbox) mod list {
    use super::*;

    pub(in crate::sandbox) fn serialize<T: Octets, S: Serializer>(
        values: &[T],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(Wire::of))
    }

    pub(in crate::sandbox) fn deserialize<'de, T: Octets, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<T>, D::Error> {
        let values = Vec::<Wire<'de>>::deserialize(deserializer)?;
        Ok(values.into_iter().map(Wire::into_value).collect())
    }
}

/// Sends names with their values, each as bytes.
pub(in crate::sandbox) mod pairs {
    use super::*;

    pub(in crate::sandbox) fn serialize<T: Octets, S: Serializer>(
        pairs: &[(T, T)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(pairs.iter().map(|(name, value)| (Wire::of(name), Wire::of(value))))
    }

    pub(in crate::sandbox) fn deserialize<'de, T: Octets, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(T, T)>, D::Error> {
        let pairs = Vec::<(Wire<'de>, Wire<'de>)>::deserialize(deserializer)?;
        let owned = |(name, value): (Wire<'_>, Wire<'_>)| (name.into_value(), value.into_value());
        Ok(pairs.into_iter().map(owned).collect())
    }
}
