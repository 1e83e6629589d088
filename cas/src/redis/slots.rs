//! Which slot of a cluster a key is in, and which node serves a slot (Redis Cluster
//! specification, "Key distribution model", "Hash tags").

use ::redis::Value;

use super::address::Address;

pub(super) const SLOTS: u16 = 16_384;

/// CRC16 (XMODEM) of the key, or of its first hash tag that is not empty, modulo the slots.
pub(super) fn slot(key: &[u8]) -> u16 {
    crc16(hash_tag(key).unwrap_or(key)) % SLOTS
}

fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|&byte| byte == b'{')?;
    let tag = &key[open + 1..];
    let close = tag.iter().position(|&byte| byte == b'}')?;
    (close > 0).then(|| &tag[..close])
}

const POLYNOMIAL: u16 = 0x1021;

const CRC_TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ POLYNOMIAL };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc16(data: &[u8]) -> u16 {
    data.iter().fold(0, |crc, &byte| (crc << 8) ^ CRC_TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

/// The masters of a cluster.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SlotMap {
    /// First and last slot and who serves them, in order.
    ranges: Vec<(u16, u16, Address)>,
}

impl SlotMap {
    /// Reads the answer to `CLUSTER SLOTS`. `from`: who answered; a node that does not know its
    /// own name is meant by an empty one.
    pub(super) fn parse(answer: &Value, from: &Address) -> Option<Self> {
        let Value::Array(entries) = answer else { return None };
        let mut ranges = Vec::with_capacity(entries.len());
        for entry in entries {
            let Value::Array(fields) = entry else { return None };
            let [Value::Int(first), Value::Int(last), master, ..] = fields.as_slice() else {
                return None;
            };
            let Some(master) = node(master, from) else { continue };
            ranges.push((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, master));
        }
        ranges.sort();
        Some(Self { ranges })
    }

    pub(super) fn master(&self, slot: u16) -> Option<&Address> {
        let after = self.ranges.partition_point(|(first, ..)| *first <= slot);
        let (_, last, address) = self.ranges.get(after.checked_sub(1)?)?;
        (slot <= *last).then_some(address)
    }

    pub(super) fn masters(&self) -> impl Iterator<Item = &Address> {
        self.ranges.iter().map(|(_, _, address)| address)
    }
}

/// `None`: a node whose address nobody knows at the moment.
fn node(fields: &Value, from: &Address) -> Option<Address> {
    let Value::Array(fields) = fields else { return None };
    let [host, Value::Int(port), ..] = fields.as_slice() else { return None };
    let host = match host {
        Value::Nil => "",
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        _ => return None,
    };
    let host = match host {
        "" => from.host.as_str(),
        "?" => return None,
        host => host,
    };
    Some(Address { host: host.to_owned(), port: u16::try_from(*port).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"{foo}.bar"), 12182);
        assert_eq!(slot(b"x{foo}{bar}"), 12182);
        assert_eq!(slot(b"{}foo"), crc16(b"{}foo") % SLOTS);
        assert_eq!(slot(b"{foo"), crc16(b"{foo") % SLOTS);
    }

    #[test]
    fn slot_maps_find_the_master() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port), text("id")]);
        let range =
            |first, last, node| Value::Array(vec![Value::Int(first), Value::Int(last), node]);
        let answer = Value::Array(vec![
            range(100, 200, node(text("b"), 2)),
            range(0, 99, node(text(""), 1)),
            range(300, 16383, node(text("?"), 3)),
        ]);
        let from = Address { host: "a".to_owned(), port: 9 };
        let map = SlotMap::parse(&answer, &from).unwrap();
        let master = |slot| map.master(slot).map(Address::to_string);
        assert_eq!(master(0).as_deref(), Some("a:1"));
        assert_eq!(master(99).as_deref(), Some("a:1"));
        assert_eq!(master(100).as_deref(), Some("b:2"));
        assert_eq!(master(200).as_deref(), Some("b:2"));
        assert_eq!(master(201), None);
        assert_eq!(master(300), None);
        assert_eq!(SlotMap::parse(&Value::Nil, &from), None);
        assert_eq!(SlotMap::default().master(5), None);
    }
}
