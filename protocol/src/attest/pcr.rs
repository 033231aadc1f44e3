//! Platform configuration registers of the SHA-256 bank: what the machine measured while it booted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use minicbor::{Decode, Encode, bytes::ByteArray};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

/// PCRs of a PC Client TPM: 0 to 23.
const PCR_MAX: u8 = 23;

/// What is measured into a PCR (TCG PC Client Platform Firmware Profile §3.3.4; systemd's for 11 to 15).
#[must_use]
pub fn pcr_meaning(index: u8) -> &'static str {
    match index {
        0 => "firmware",
        1 => "firmware settings",
        2 | 3 => "option ROMs",
        4 => "boot loader",
        5 => "partition table",
        7 => "Secure Boot",
        8 | 9 => "boot loader's files",
        11 => "kernel image",
        12 => "kernel command line",
        13 => "system extensions",
        14 => "Secure Boot owner's keys",
        15 => "machine and file systems",
        _ => "others",
    }
}

/// Which PCRs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcrSet(BTreeSet<u8>);

impl PcrSet {
    /// These; None when one of them does not exist.
    #[must_use]
    pub fn new(indices: impl IntoIterator<Item = u8>) -> Option<Self> {
        let set: BTreeSet<u8> = indices.into_iter().collect();
        set.iter().all(|index| *index <= PCR_MAX).then_some(Self(set))
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.iter().copied()
    }

    /// None at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for PcrSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.iter().map(|index| index.to_string()).collect();
        f.write_str(&words.join(", "))
    }
}

/// PCRs and what is in them. In JSON an object of numbers and hex, in CBOR a map of numbers and bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PcrValues(pub BTreeMap<u8, [u8; 32]>);

impl PcrValues {
    /// Which PCRs.
    #[must_use]
    pub fn set(&self) -> PcrSet {
        PcrSet(self.0.keys().copied().collect())
    }

    /// The digest that policies and quotes are made over: of all values in ascending order (TPM 2.0 Part 3 §23.7).
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.0.values().fold(Sha256::new(), |hash, value| hash.chain_update(value)).finalize().into()
    }

    /// PCRs whose value here is not the one there.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Vec<u8> {
        self.0.iter().filter(|(index, value)| other.0.get(index) != Some(value)).map(|(index, _)| *index).collect()
    }

    fn known(values: BTreeMap<u8, [u8; 32]>) -> Option<Self> {
        values.keys().all(|index| *index <= PCR_MAX).then_some(Self(values))
    }
}

impl fmt::Display for PcrValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(|(index, value)| format!("{index}={}", hex::encode(value))).collect();
        f.write_str(&words.join(" "))
    }
}

impl Serialize for PcrValues {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.0.iter().map(|(index, value)| (index, hex::encode(value))))
    }
}

impl<'de> Deserialize<'de> for PcrValues {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut values = BTreeMap::new();
        for (index, text) in BTreeMap::<u8, String>::deserialize(d)? {
            let mut value = [0; 32];
            hex::decode_to_slice(text, &mut value).map_err(|_| de::Error::custom("a PCR's value is 64 hex digits"))?;
            values.insert(index, value);
        }
        Self::known(values).ok_or_else(|| de::Error::custom("PCRs are numbers from 0 to 23"))
    }
}

impl<C> Encode<C> for PcrValues {
    fn encode<W: minicbor::encode::Write>(&self, e: &mut minicbor::Encoder<W>, _: &mut C) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.map(u64::try_from(self.0.len()).unwrap_or(u64::MAX))?;
        for (index, value) in &self.0 {
            e.u8(*index)?.bytes(value)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for PcrValues {
    fn decode(d: &mut minicbor::Decoder<'b>, c: &mut C) -> Result<Self, minicbor::decode::Error> {
        let at = d.position();
        let wrong = || minicbor::decode::Error::message("PCRs are numbers from 0 to 23, each once").at(at);
        let mut values = BTreeMap::new();
        for _ in 0..d.map()?.filter(|count| *count <= u64::from(PCR_MAX) + 1).ok_or_else(wrong)? {
            let (index, value) = (d.u8()?, ByteArray::<32>::decode(d, c)?);
            values.insert(index, *value);
        }
        Self::known(values).ok_or_else(wrong)
    }
}
