//! The words that stand for bytes, scripts and descriptors in a case: hex, and what only a wallet's keys can tell.
//!
//! | word | bytes |
//! |---|---|
//! | `0a 1b2c` | as they stand |
//! | `u32:7`, `u64:7`, `i64:-1` | little endian |
//! | `zeros:300` | so many |
//! | `size:300` | a compact size |
//! | `key:WHO/0/1`, `xkey:WHO/0/1` | a public key of 33 bytes, or of 32 (BIP 340) |
//! | `origin:WHO/0/1` | fingerprint and path of that key |
//! | `origin:FINGERPRINT@84h/1h/0h` | any; `WHO` can stand for the fingerprint |
//! | `script:SCRIPT` | a script, see below |
//! | `signature:WHO:81` | a true ECDSA signature for the input of the field, with this sighash type in hex |
//!
//! `WHO` is `own`, `cosigner`, `somebody` or `evil`. A `SCRIPT` is `p2pkh`, `p2sh`, `p2wpkh`, `p2wsh`, `p2tr` (somebody's), `own/1/2`,
//! `op_return:BYTES`, `hex:…`, or a descriptor of single scripts in which `OWN`, `COSIGNER` and `EVIL` stand for account keys:
//! `wsh(multi(2,OWN/1/2,EVIL/1/2))`.

use std::{collections::BTreeMap, str::FromStr as _};

use anyhow::{Context as _, Result, bail};
use bitcoin::{
    PublicKey, ScriptBuf, VarInt,
    bip32::{ChildNumber, DerivationPath, Fingerprint},
    consensus::encode,
    opcodes::all::OP_RETURN,
    script::{Builder, PushBytesBuf},
};
use miniscript::{DefiniteDescriptorKey, Descriptor, ForEachKey as _};
use postern_testkit::spend::Scripts;

use crate::wallets;

/// What can be said about the wallets from their descriptors alone.
#[derive(Debug)]
pub(crate) struct World {
    descriptors: BTreeMap<String, String>,
    cosigner: String,
    evil: String,
}

/// One wallet of them, from whose side a case speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side<'w> {
    world: &'w World,
    wallet: &'w str,
}

impl World {
    pub(crate) fn new(descriptors: BTreeMap<String, String>) -> Result<Self> {
        Ok(Self { descriptors, cosigner: wallets::cosigner()?, evil: wallets::account("evil", "48h/1h/0h")? })
    }

    pub(crate) fn side<'w>(&'w self, wallet: &'w str) -> Side<'w> {
        Side { world: self, wallet }
    }
}

impl<'w> Side<'w> {
    fn descriptor(&self) -> Result<&'w str> {
        Ok(self.world.descriptors.get(self.wallet).with_context(|| format!("no wallet `{}` in wallets.toml", self.wallet))?)
    }

    /// The same from another wallet's side.
    pub(crate) fn of(self, wallet: &'w str) -> Self {
        Self { wallet, ..self }
    }

    /// The descriptor at `branch/index`.
    pub(crate) fn at(&self, place: &str) -> Result<Descriptor<DefiniteDescriptorKey>> {
        let (branch, index) = place.split_once('/').with_context(|| format!("`{place}` is not branch/index"))?;
        Scripts::new(self.descriptor()?)?.at(branch.parse()?, index.parse()?)
    }

    /// Our account key with its origin, as it stands in the descriptor: the one that is not the cosigner's.
    fn own(&self) -> Result<&'w str> {
        let descriptor = self.descriptor()?;
        let key = descriptor.split('[').skip(1).map(|key| &key[..key.find("/<").unwrap_or(key.len())]);
        let mut ours = key.filter(|key| !self.world.cosigner.contains(key));
        ours.next().with_context(|| format!("no own key in {descriptor}"))
    }

    /// A descriptor with names of account keys in it.
    pub(crate) fn fill(&self, template: &str) -> Result<Descriptor<DefiniteDescriptorKey>> {
        let own = format!("[{}", self.own()?);
        // In this order: `COSIGNER` must not be taken for something that holds `OWN`.
        let text = template.replace("COSIGNER", &self.world.cosigner).replace("EVIL", &self.world.evil).replace("OWN", &own);
        Descriptor::from_str(&text).with_context(|| format!("not a descriptor: {text}"))
    }

    /// A key by `WHO/branch/index`, with its origin.
    fn key(&self, name: &str) -> Result<(PublicKey, Fingerprint, DerivationPath)> {
        let (who, rest) = name.split_once('/').with_context(|| format!("`{name}` is not who/branch/index"))?;
        let account = match who {
            "own" => format!("[{}", self.own()?),
            "cosigner" => self.world.cosigner.clone(),
            "evil" => self.world.evil.clone(),
            "somebody" => wallets::account("somebody", "84h/1h/0h")?,
            _ => bail!("nobody is called `{who}`"),
        };
        let descriptor: Descriptor<DefiniteDescriptorKey> = format!("wpkh({account}/{rest})").parse()?;
        let mut found = None;
        descriptor.for_each_key(|key| {
            found = Some((key.derive_public_key(&bitcoin::secp256k1::Secp256k1::verification_only()), key.clone()));
            true
        });
        let (public, key) = found.context("a descriptor has a key")?;
        Ok((public?, key.master_fingerprint(), key.full_derivation_path().context("one path")?))
    }

    fn fingerprint(&self, name: &str) -> Result<Fingerprint> {
        if let Ok(fingerprint) = name.parse() {
            return Ok(fingerprint);
        }
        Ok(self.key(&format!("{name}/0/0"))?.1)
    }

    /// The bytes that words stand for. `signature:` is for [`crate::build`], who knows the transaction.
    pub(crate) fn bytes(&self, words: &str) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for word in words.split_whitespace() {
            out.extend(self.word(word).with_context(|| format!("`{word}`"))?);
        }
        Ok(out)
    }

    fn word(&self, word: &str) -> Result<Vec<u8>> {
        let Some((kind, of)) = word.split_once(':') else { return Ok(hex::decode(word)?) };
        Ok(match kind {
            "u32" => of.parse::<u32>()?.to_le_bytes().to_vec(),
            "u64" => of.parse::<u64>()?.to_le_bytes().to_vec(),
            "i64" => of.parse::<i64>()?.to_le_bytes().to_vec(),
            "zeros" => vec![0; of.parse()?],
            "size" => encode::serialize(&VarInt(of.parse()?)),
            "key" => self.key(of)?.0.to_bytes(),
            "xkey" => self.key(of)?.0.inner.x_only_public_key().0.serialize().to_vec(),
            "origin" => {
                let (fingerprint, path) = match of.split_once('@') {
                    Some((who, path)) => (self.fingerprint(who)?, DerivationPath::from_str(path)?),
                    None => {
                        let (_, fingerprint, path) = self.key(of)?;
                        (fingerprint, path)
                    }
                };
                let steps = path.into_iter().flat_map(|step: &ChildNumber| u32::from(*step).to_le_bytes());
                fingerprint.to_bytes().into_iter().chain(steps).collect()
            }
            "script" => self.script(of)?.to_bytes(),
            _ => bail!("is no word"),
        })
    }

    /// A script by its name.
    pub(crate) fn script(&self, name: &str) -> Result<ScriptBuf> {
        if let Some(place) = name.strip_prefix("own/") {
            return Ok(self.at(place)?.script_pubkey());
        }
        if let Some(hex) = name.strip_prefix("hex:") {
            return Ok(ScriptBuf::from_bytes(self.bytes(hex)?));
        }
        if let Some(count) = name.strip_prefix("op_return:") {
            let data = PushBytesBuf::try_from(vec![7; count.parse()?])?;
            return Ok(Builder::new().push_opcode(OP_RETURN).push_slice(data).into_script());
        }
        let key = self.key("somebody/0/0")?.0;
        let witness = || -> Result<ScriptBuf> { Ok(ScriptBuf::new_p2wpkh(&key.wpubkey_hash()?)) };
        Ok(match name {
            "p2pkh" => ScriptBuf::new_p2pkh(&key.pubkey_hash()),
            "p2sh" => ScriptBuf::new_p2sh(&witness()?.script_hash()),
            "p2wpkh" => witness()?,
            "p2wsh" => ScriptBuf::new_p2wsh(&witness()?.wscript_hash()),
            "p2tr" => ScriptBuf::from_bytes([&[0x51, 0x20][..], &key.inner.x_only_public_key().0.serialize()].concat()),
            "p2pk" => ScriptBuf::new_p2pk(&key),
            descriptor => self.fill(descriptor)?.script_pubkey(),
        })
    }
}
