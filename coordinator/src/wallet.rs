//! Wallets as the coordinator knows them: public descriptors, the addresses they give and what spending from them weighs. Nothing here is
//! trusted by the signer, which derives everything itself.

use std::str::FromStr as _;

use bitcoin::{Address, Network, NetworkKind, PublicKey, ScriptBuf, Sequence, absolute, relative};
use miniscript::{
    DefiniteDescriptorKey, Descriptor, DescriptorPublicKey, ForEachKey as _,
    descriptor::{ShInner, WshInner},
    miniscript::decode::Terminal,
    plan::AssetProvider,
};

use crate::store::OwnScript;

/// The deposit branch.
pub const RECEIVE: u32 = 0;
/// The change branch.
pub const CHANGE: u32 = 1;
/// Signals replaceability (BIP 125) and sets no lock time.
const REPLACEABLE: Sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;
/// A public key to try a pool's descriptor with: the generator point.
const SAMPLE_KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

/// Why a descriptor is no wallet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalletError {
    /// It does not parse.
    #[error("the descriptor is not valid: {0}")]
    Descriptor(String),
    /// The signer signs no such script.
    #[error("{0} is not supported: the signer signs pkh, wpkh, sh(wpkh), wsh and tr")]
    Script(&'static str),
    /// It has a wildcard and not two branches.
    #[error("a descriptor with `*` has a receive and a change branch: write `<0;1>/*`")]
    Branches,
    /// An extended key is for another network.
    #[error("the descriptor's keys are for {found}, the network is {wanted}")]
    Network {
        /// Of the keys.
        found: &'static str,
        /// Of the configuration.
        wanted: Network,
    },
    /// Spending would need a lock time in seconds.
    #[error("lock times by date are not supported: use `older` and `after` with block counts and heights")]
    TimeLock,
    /// It cannot be spent by signatures alone.
    #[error("the descriptor cannot be spent by signatures and block heights alone")]
    Unspendable,
    /// A pool's key is needed and not known.
    #[error("the public key of pool address {branch}/{index} is not known yet")]
    PoolKey {
        /// Branch.
        branch: u32,
        /// Index.
        index: u32,
    },
    /// Bytes are not a public key.
    #[error("the pool's key is not a compressed public key")]
    Key,
    /// An index past the last.
    #[error("there is no address {branch}/{index}")]
    Index {
        /// Branch.
        branch: u32,
        /// Index.
        index: u32,
    },
}

/// What spending from a wallet asks of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpendShape {
    /// Each input's sequence.
    pub sequence: Sequence,
    /// Blocks that a coin must have before it can be spent.
    pub min_age: u32,
    /// The transaction's lock time.
    pub lock_time: absolute::LockTime,
    /// Weight of one input's satisfaction, upper bound, beyond the 41 bytes of an empty input.
    pub satisfaction_wu: u64,
    /// Whether inputs are segwit.
    pub segwit: bool,
    /// Whether inputs are Taproot: previous transactions are not needed then.
    pub taproot: bool,
}

#[derive(Debug, Clone)]
enum Scripts {
    Ranged { receive: Box<Descriptor<DescriptorPublicKey>>, change: Box<Descriptor<DescriptorPublicKey>> },
    Single(Box<Descriptor<DefiniteDescriptorKey>>),
    Pool(String),
}

/// A wallet's public half.
#[derive(Debug, Clone)]
pub struct Wallet {
    name: String,
    network: Network,
    scripts: Scripts,
    shape: SpendShape,
    quorum: Option<usize>,
}

/// Everything but time can be had.
struct Anything {
    time: bool,
}

impl AssetProvider<DefiniteDescriptorKey> for Anything {
    fn provider_lookup_ecdsa_sig(&self, _: &DefiniteDescriptorKey) -> bool {
        true
    }
    fn provider_lookup_tap_key_spend_sig(&self, _: &DefiniteDescriptorKey) -> Option<usize> {
        Some(64)
    }
    fn provider_lookup_tap_leaf_script_sig(&self, _: &DefiniteDescriptorKey, _: &bitcoin::TapLeafHash) -> Option<usize> {
        Some(64)
    }
    fn check_older(&self, _: relative::LockTime) -> bool {
        self.time
    }
    fn check_after(&self, _: absolute::LockTime) -> bool {
        self.time
    }
}

fn descriptor_error(e: impl std::fmt::Display) -> WalletError {
    WalletError::Descriptor(e.to_string())
}

/// Puts a key where the word `pool` stands as a whole argument. `None`: it stands nowhere.
fn fill_pool(template: &str, key: &str) -> Option<String> {
    let edge = |c: Option<char>| matches!(c, Some('(' | ')' | ',' | '{' | '}'));
    let mut out = String::with_capacity(template.len().saturating_add(key.len()));
    let mut rest = template;
    let mut found = false;
    while let Some((before, after)) = rest.split_once("pool") {
        out.push_str(before);
        let whole = edge(out.chars().next_back()) && edge(after.chars().next());
        out.push_str(if whole { key } else { "pool" });
        found |= whole;
        rest = after;
    }
    out.push_str(rest);
    found.then_some(out)
}

fn shape(definite: &Descriptor<DefiniteDescriptorKey>) -> Result<SpendShape, WalletError> {
    // A way without waiting is taken when there is one.
    let plan_with = |time| definite.clone().plan(&Anything { time }).ok();
    let plan = plan_with(false).or_else(|| plan_with(true)).ok_or(WalletError::Unspendable)?;
    let (sequence, min_age) = match plan.relative_timelock {
        None => (REPLACEABLE, 0),
        Some(relative::LockTime::Blocks(blocks)) => (Sequence::from_height(blocks.value()), u32::from(blocks.value())),
        Some(relative::LockTime::Time(_)) => return Err(WalletError::TimeLock),
    };
    let lock_time = match plan.absolute_timelock {
        None => absolute::LockTime::ZERO,
        Some(lock @ absolute::LockTime::Blocks(_)) => lock,
        Some(absolute::LockTime::Seconds(_)) => return Err(WalletError::TimeLock),
    };
    let satisfaction_wu = definite.max_weight_to_satisfy().map_err(descriptor_error)?.to_wu();
    let kind = definite.desc_type();
    let version = kind.segwit_version();
    Ok(SpendShape {
        sequence,
        min_age,
        lock_time,
        satisfaction_wu,
        segwit: version.is_some(),
        taproot: version == Some(bitcoin::WitnessVersion::V1),
    })
}

/// What a signer refuses is refused here too, before anybody deposits to it.
fn check_script(definite: &Descriptor<DefiniteDescriptorKey>) -> Result<(), WalletError> {
    match definite {
        Descriptor::Sh(sh) => match sh.as_inner() {
            ShInner::Wpkh(_) => Ok(()),
            ShInner::Wsh(_) => Err(WalletError::Script("sh(wsh(…))")),
            ShInner::SortedMulti(_) | ShInner::Ms(_) => Err(WalletError::Script("a bare script in sh(…)")),
        },
        Descriptor::Bare(_) => Err(WalletError::Script("a bare script")),
        Descriptor::Pkh(_) | Descriptor::Wpkh(_) | Descriptor::Wsh(_) | Descriptor::Tr(_) => Ok(()),
    }
}

/// How many signatures a plain multisig needs.
fn quorum(definite: &Descriptor<DefiniteDescriptorKey>) -> Option<usize> {
    let wsh = match definite {
        Descriptor::Wsh(wsh) => wsh.as_inner(),
        Descriptor::Pkh(_) | Descriptor::Wpkh(_) | Descriptor::Sh(_) => return Some(1),
        Descriptor::Tr(tr) if tr.tap_tree().is_none() => return Some(1),
        _ => return None,
    };
    match wsh {
        WshInner::SortedMulti(multi) => Some(multi.k()),
        WshInner::Ms(ms) => match &ms.node {
            Terminal::Multi(threshold) => Some(threshold.k()),
            _ => None,
        },
    }
}

impl Wallet {
    /// From a public descriptor (BIP 380, 389), or one in which the word `pool` stands where the key goes.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn new(name: &str, network: Network, descriptor: &str) -> Result<Self, WalletError> {
        let scripts = Self::parse(network, descriptor)?;
        let sample = match &scripts {
            Scripts::Ranged { receive, .. } => receive.at_derivation_index(0).map_err(descriptor_error)?,
            Scripts::Single(definite) => (**definite).clone(),
            Scripts::Pool(template) => Self::pool_descriptor(template, SAMPLE_KEY)?,
        };
        sample.sanity_check().map_err(descriptor_error)?;
        check_script(&sample)?;
        Ok(Self { name: name.to_owned(), network, scripts, shape: shape(&sample)?, quorum: quorum(&sample) })
    }

    fn parse(network: Network, descriptor: &str) -> Result<Scripts, WalletError> {
        let bare = descriptor.split_once('#').map_or(descriptor, |(bare, _)| bare);
        if fill_pool(bare, SAMPLE_KEY).is_some() {
            return Ok(Scripts::Pool(bare.to_owned()));
        }
        let parsed = Descriptor::<DescriptorPublicKey>::from_str(descriptor).map_err(descriptor_error)?;
        let kind = NetworkKind::from(network);
        let foreign = parsed.for_any_key(|key| match key {
            DescriptorPublicKey::Single(_) => false,
            DescriptorPublicKey::XPub(x) => x.xkey.network != kind,
            DescriptorPublicKey::MultiXPub(x) => x.xkey.network != kind,
        });
        if foreign {
            let found = if kind == NetworkKind::Main { "test networks (tpub)" } else { "bitcoin (xpub)" };
            return Err(WalletError::Network { found, wanted: network });
        }
        if !parsed.has_wildcard() {
            if parsed.is_multipath() {
                return Err(WalletError::Branches);
            }
            return Ok(Scripts::Single(Box::new(parsed.at_derivation_index(0).map_err(descriptor_error)?)));
        }
        let branches = parsed.into_single_descriptors().map_err(descriptor_error)?;
        let [receive, change] = <[_; 2]>::try_from(branches).map_err(|_| WalletError::Branches)?;
        Ok(Scripts::Ranged { receive: Box::new(receive), change: Box::new(change) })
    }

    fn pool_descriptor(template: &str, key: &str) -> Result<Descriptor<DefiniteDescriptorKey>, WalletError> {
        let text = fill_pool(template, key).ok_or(WalletError::Key)?;
        let parsed = Descriptor::<DescriptorPublicKey>::from_str(&text).map_err(descriptor_error)?;
        if parsed.has_wildcard() || parsed.is_multipath() {
            return Err(WalletError::Descriptor("a pool's descriptor has no other key with `*`".into()));
        }
        parsed.at_derivation_index(0).map_err(descriptor_error)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What spending from it asks of the transaction.
    #[must_use]
    pub fn shape(&self) -> SpendShape {
        self.shape
    }

    /// How many of `signers` have to sign.
    #[must_use]
    pub fn quorum(&self, signers: usize) -> usize {
        self.quorum.map_or(signers, |k| k.min(signers))
    }

    /// Whether public keys come from the signer.
    #[must_use]
    pub fn is_pool(&self) -> bool {
        matches!(self.scripts, Scripts::Pool(_))
    }

    /// Whether there is one address only.
    #[must_use]
    pub fn is_single(&self) -> bool {
        matches!(self.scripts, Scripts::Single(_))
    }

    /// The branch that change goes to.
    #[must_use]
    pub fn change_branch(&self) -> u32 {
        if self.is_single() { RECEIVE } else { CHANGE }
    }

    /// The descriptor of one address. `key` is the pool's.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn at(&self, branch: u32, index: u32, key: Option<&[u8]>) -> Result<Descriptor<DefiniteDescriptorKey>, WalletError> {
        match (&self.scripts, branch) {
            (Scripts::Ranged { receive, .. }, RECEIVE) => receive.at_derivation_index(index).map_err(descriptor_error),
            (Scripts::Ranged { change, .. }, CHANGE) => change.at_derivation_index(index).map_err(descriptor_error),
            (Scripts::Single(definite), RECEIVE) if index == 0 => Ok((**definite).clone()),
            (Scripts::Pool(template), RECEIVE | CHANGE) => {
                let key = PublicKey::from_slice(key.ok_or(WalletError::PoolKey { branch, index })?).map_err(|_| WalletError::Key)?;
                if !key.compressed {
                    return Err(WalletError::Key);
                }
                Self::pool_descriptor(template, &key.to_string())
            }
            _ => Err(WalletError::Index { branch, index }),
        }
    }

    /// One address's script as the store keeps it.
    ///
    /// # Errors
    /// [`WalletError`].
    pub fn script(&self, branch: u32, index: u32, key: Option<&[u8]>) -> Result<OwnScript, WalletError> {
        let script = self.at(branch, index, key)?.script_pubkey();
        Ok(OwnScript { wallet: self.name.clone(), branch, index, script, public_key: key.map(<[u8]>::to_vec) })
    }

    /// A script as people write it.
    #[must_use]
    pub fn address(&self, script: &ScriptBuf) -> Option<Address> {
        Address::from_script(script, self.network).ok()
    }
}

#[cfg(test)]
mod tests;
