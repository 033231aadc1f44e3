//! PSBTs as maps of bytes, to write what no library would.

use bitcoin::{Psbt, consensus::Encodable as _};

/// A PSBT, field by field.
#[derive(Clone)]
pub(super) struct Raw {
    /// Global map, inputs, outputs; each key with its kind.
    pub(super) maps: Vec<Vec<(Vec<u8>, Vec<u8>)>>,
}

fn compact_size(bytes: &mut &[u8]) -> usize {
    let (first, rest) = bytes.split_first().unwrap();
    let (length, value) = match first {
        0xfd => (2, u64::from(u16::from_le_bytes(rest[..2].try_into().unwrap()))),
        0xfe => (4, u64::from(u32::from_le_bytes(rest[..4].try_into().unwrap()))),
        _ => (0, u64::from(*first)),
    };
    *bytes = &rest[length..];
    value.try_into().unwrap()
}

fn sized(bytes: &mut &[u8]) -> Vec<u8> {
    let length = compact_size(bytes);
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    taken.to_vec()
}

pub(super) fn with_size(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    bitcoin::VarInt::from(bytes.len()).consensus_encode(&mut out).unwrap();
    out.extend_from_slice(bytes);
    out
}

impl From<&Psbt> for Raw {
    fn from(psbt: &Psbt) -> Self {
        Self::read(&psbt.serialize())
    }
}

impl Raw {
    pub(super) fn read(bytes: &[u8]) -> Self {
        let mut rest = &bytes[5..];
        let mut maps = Vec::new();
        while !rest.is_empty() {
            let mut map = Vec::new();
            loop {
                let key = sized(&mut rest);
                if key.is_empty() {
                    break;
                }
                map.push((key, sized(&mut rest)));
            }
            maps.push(map);
        }
        Self { maps }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = b"psbt\xff".to_vec();
        for map in &self.maps {
            for (key, value) in map {
                out.extend(with_size(key));
                out.extend(with_size(value));
            }
            out.push(0);
        }
        out
    }

    /// Adds a field to a map: 0 global, then the inputs, then the outputs.
    pub(super) fn with(mut self, map: usize, key: &[u8], value: &[u8]) -> Self {
        self.maps[map].push((key.to_vec(), value.to_vec()));
        self
    }

    /// Changes the unsigned transaction's bytes.
    pub(super) fn unsigned(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let field = self.maps[0].iter_mut().find(|(key, _)| key == &[0]).unwrap();
        change(&mut field.1);
        self
    }
}
