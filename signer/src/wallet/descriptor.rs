//! A descriptor that was checked: from here on it can only be derived.

use std::{collections::HashMap, str::FromStr as _};

use bitcoin::{
    Network, NetworkKind, PrivateKey, PublicKey,
    bip32::{ChildNumber, DerivationPath, Fingerprint, Xpub},
    key::XOnlyPublicKey,
    secp256k1::{Secp256k1, VerifyOnly},
};
use miniscript::{
    Descriptor, ForEachKey as _, ToPublicKey as _, TranslatePk as _, Translator,
    descriptor::{DescriptorPublicKey, ShInner, Wildcard, checksum::desc_checksum},
    translate_hash_clone,
};

use super::{BRANCH_MAX, KeyLocator, KeyRef, OwnScript, Position, SpendScript, TapLeaf, Timelocks, WalletError, key::WalletKey, weight};
use crate::keystore::{AccountKey, BoundKeys};

/// Indices of normal derivation end here (BIP 32).
const INDEX_END: u32 = 1 << 31;

/// A checked descriptor.
#[derive(Debug)]
pub(super) struct Template {
    descriptor: Descriptor<WalletKey>,
    keys: HashMap<WalletKey, KeySource>,
    ranged: bool,
    heaviest: u64,
    lightest: u64,
    timelocks: Timelocks,
    secp: Secp256k1<VerifyOnly>,
}

/// How a key expression becomes a key.
#[derive(Debug)]
pub(super) enum KeySource {
    /// Numbered keys, ours.
    Pool,
    /// Always the same.
    Single { key: PublicKey, ours: bool },
    /// Derived.
    Extended(ExtendedKey),
}

/// An extended key expression.
#[derive(Debug)]
pub(super) struct ExtendedKey {
    pub(super) fingerprint: Fingerprint,
    pub(super) ours: bool,
    pub(super) wildcard: bool,
    /// One, or one for each branch: the path from the master key, and the key there.
    pub(super) branches: Vec<(DerivationPath, Xpub)>,
}

impl ExtendedKey {
    fn branch(&self, branch: u32) -> Option<&(DerivationPath, Xpub)> {
        let branch = usize::try_from(branch).ok()?;
        if self.branches.len() == 1 { self.branches.first() } else { self.branches.get(branch) }
    }
}

impl Template {
    pub(super) fn new(network: Network, text: &str, own: &BoundKeys) -> Result<Self, WalletError> {
        let descriptor = parse(text)?;
        check_shape(&descriptor, own)?;
        descriptor.sanity_check().map_err(|e| WalletError::NotSane { reason: e.to_string() })?;
        let expressions = expressions(&descriptor);
        let secp = Secp256k1::verification_only();
        let mut keys = HashMap::new();
        for expression in &expressions {
            let source = source(expression, network, own, &secp)?;
            keys.insert(expression.clone(), source);
        }
        check_own(own, &keys)?;
        let ranged = check_branches(&expressions)?;
        let template = Self {
            heaviest: weight::heaviest(&descriptor)?,
            lightest: weight::lightest(&descriptor),
            timelocks: Timelocks::of(&descriptor),
            descriptor,
            keys,
            ranged,
            secp,
        };
        template.check_derived(own)?;
        Ok(template)
    }

    /// With `h` for hardened steps, which a shell does not take for a quote, and the checksum of that form.
    pub(super) fn text(&self) -> String {
        let text = format!("{:#}", self.descriptor).replace('\'', "h");
        match desc_checksum(&text) {
            Ok(checksum) => format!("{text}#{checksum}"),
            // Only for characters that no descriptor has.
            Err(_) => text,
        }
    }

    pub(super) fn branches(&self) -> u32 {
        if self.ranged { 2 } else { 1 }
    }

    /// The first index past the gap.
    pub(super) fn end(&self, last_used: Option<u32>, gap: u32) -> u32 {
        if !self.ranged {
            return 1;
        }
        last_used.map_or(0, |last| last.saturating_add(1)).saturating_add(gap).min(BRANCH_MAX)
    }

    /// Whether there is such an index, recognised or not.
    pub(super) fn has_index(&self, index: u32) -> bool {
        index < if self.ranged { INDEX_END } else { 1 }
    }

    pub(super) fn timelocks(&self) -> Timelocks {
        self.timelocks
    }

    pub(super) fn lightest_weight(&self) -> u64 {
        self.lightest
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = &KeySource> {
        self.keys.values()
    }

    /// The script at a position.
    pub(super) fn derive(&self, position: Position, pool_key: Option<PublicKey>) -> Result<OwnScript, WalletError> {
        if position.branch >= self.branches() || !self.has_index(position.index) {
            return Err(WalletError::Position { position, reason: "the descriptor has no such branch or index".into() });
        }
        let mut deriver = Deriver { template: self, position, pool_key, own: Vec::new() };
        let derived = self.descriptor.translate_pk(&mut deriver).map_err(|e| match e {
            miniscript::TranslateErr::TranslatorErr(e) => e,
            miniscript::TranslateErr::OuterError(e) => WalletError::NotSane { reason: e.to_string() },
        })?;
        let keys = deriver.own;
        Ok(OwnScript {
            position,
            script_pubkey: derived.script_pubkey(),
            spend: spend_script(&derived, &keys)?,
            keys,
            satisfaction_weight: self.heaviest,
        })
    }

    /// Rules that hold for keys, not for key expressions: no key twice in a script.
    fn check_derived(&self, own: &BoundKeys) -> Result<(), WalletError> {
        if matches!(own, BoundKeys::Pool) {
            return Ok(());
        }
        for branch in 0..self.branches() {
            let position = Position { branch, index: 0 };
            let mut deriver = Deriver { template: self, position, pool_key: None, own: Vec::new() };
            let derived = self.descriptor.translate_pk(&mut deriver).map_err(|e| match e {
                miniscript::TranslateErr::TranslatorErr(e) => e,
                miniscript::TranslateErr::OuterError(e) => WalletError::NotSane { reason: e.to_string() },
            })?;
            derived.sanity_check().map_err(|e| WalletError::NotSane { reason: format!("at {position}: {e}") })?;
        }
        Ok(())
    }
}

/// Replaces key expressions by the keys of a position, and keeps ours.
struct Deriver<'t> {
    template: &'t Template,
    position: Position,
    pool_key: Option<PublicKey>,
    own: Vec<KeyRef>,
}

impl Deriver<'_> {
    fn keep(&mut self, locator: KeyLocator, public_key: PublicKey) {
        if !self.own.iter().any(|known| known.public_key == public_key) {
            self.own.push(KeyRef { locator, public_key });
        }
    }

    fn nothing_there(&self, reason: &str) -> WalletError {
        WalletError::Position { position: self.position, reason: reason.into() }
    }
}

impl Translator<WalletKey, PublicKey, WalletError> for Deriver<'_> {
    fn pk(&mut self, expression: &WalletKey) -> Result<PublicKey, WalletError> {
        let source = self.template.keys.get(expression).ok_or_else(|| self.nothing_there("a key of the descriptor is unknown"))?;
        match source {
            KeySource::Pool => {
                let key = self.pool_key.ok_or_else(|| self.nothing_there("the pool has no key there yet"))?;
                self.keep(KeyLocator::Pool(self.position), key);
                Ok(key)
            }
            KeySource::Single { key, ours } => {
                if *ours {
                    self.keep(KeyLocator::Hsm, *key);
                }
                Ok(*key)
            }
            KeySource::Extended(extended) => {
                let (path, xpub) = extended.branch(self.position.branch).ok_or_else(|| self.nothing_there("a key has no such branch"))?;
                let step = extended.wildcard.then_some(ChildNumber::Normal { index: self.position.index });
                let derived = xpub.derive_pub(&self.template.secp, &step.as_slice()).map_err(|e| self.nothing_there(&e.to_string()))?;
                let key = PublicKey::new(derived.public_key);
                if extended.ours {
                    let path = step.map_or_else(|| path.clone(), |step| path.child(step));
                    self.keep(KeyLocator::Seed(path), key);
                }
                Ok(key)
            }
        }
    }

    translate_hash_clone!(WalletKey, PublicKey, WalletError);
}

fn spend_script(derived: &Descriptor<PublicKey>, own: &[KeyRef]) -> Result<SpendScript, WalletError> {
    let unsupported = || WalletError::Unsupported { what: "this descriptor".into() };
    Ok(match derived {
        Descriptor::Pkh(_) => SpendScript::P2pkh,
        Descriptor::Wpkh(_) => SpendScript::P2wpkh,
        Descriptor::Sh(sh) => match sh.as_inner() {
            ShInner::Wpkh(inner) => SpendScript::P2shP2wpkh { redeem_script: inner.script_pubkey() },
            ShInner::Wsh(_) | ShInner::SortedMulti(_) | ShInner::Ms(_) => return Err(unsupported()),
        },
        Descriptor::Wsh(wsh) => SpendScript::P2wsh { witness_script: wsh.inner_script() },
        Descriptor::Tr(tr) => {
            let info = tr.spend_info();
            let internal_key = info.internal_key();
            let ours = |x: XOnlyPublicKey| own.iter().find(move |key| XOnlyPublicKey::from(key.public_key.inner) == x).cloned();
            let leaves = tr.iter_scripts().filter_map(|(_, leaf)| {
                let keys: Vec<KeyRef> = leaf.iter_pk().filter_map(|key| ours(key.to_x_only_pubkey())).collect();
                (!keys.is_empty()).then(|| TapLeaf { script: leaf.encode(), version: bitcoin::taproot::LeafVersion::TapScript, keys })
            });
            SpendScript::Taproot {
                internal_key,
                output_key_parity: info.output_key_parity(),
                merkle_root: info.merkle_root(),
                key_path: ours(internal_key),
                leaves: leaves.collect(),
            }
        }
        Descriptor::Bare(_) => return Err(unsupported()),
    })
}

/// Characters of a descriptor's checksum (BIP 380).
const CHECKSUM_LEN: usize = 8;

/// Parses, after making sure that no error text can hold a private key.
fn parse(text: &str) -> Result<Descriptor<WalletKey>, WalletError> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    for word in words {
        // A public key may hold these letters by chance, about one in two thousand does; its checksum tells. So may the descriptor's own
        // checksum, which is too short to hold anything of a key.
        let private = word.len() > CHECKSUM_LEN && word.contains("prv") && Xpub::from_str(word).is_err();
        if private || PrivateKey::from_str(word).is_ok() {
            return Err(WalletError::PrivateKey);
        }
    }
    text.trim().parse().map_err(|e: miniscript::Error| WalletError::Syntax { reason: e.to_string() })
}

fn check_shape(descriptor: &Descriptor<WalletKey>, own: &BoundKeys) -> Result<(), WalletError> {
    let unsupported = |what: &str| Err(WalletError::Unsupported { what: what.into() });
    match descriptor {
        Descriptor::Pkh(_) | Descriptor::Wpkh(_) | Descriptor::Wsh(_) => Ok(()),
        Descriptor::Sh(sh) => match sh.as_inner() {
            ShInner::Wpkh(_) => Ok(()),
            ShInner::Wsh(_) => unsupported("sh(wsh(…))"),
            ShInner::SortedMulti(_) | ShInner::Ms(_) => unsupported("a bare script in sh(…)"),
        },
        Descriptor::Tr(_) if matches!(own, BoundKeys::Seed { .. }) => Ok(()),
        Descriptor::Tr(_) => Err(WalletError::Taproot),
        Descriptor::Bare(_) => unsupported("a bare script"),
    }
}

/// Each key expression once, in the descriptor's order.
fn expressions(descriptor: &Descriptor<WalletKey>) -> Vec<WalletKey> {
    let mut all: Vec<WalletKey> = Vec::new();
    descriptor.for_each_key(|key| {
        if !all.contains(key) {
            all.push(key.clone());
        }
        true
    });
    all
}

/// The account that an extended key expression starts from.
fn account(expression: &WalletKey) -> Option<AccountKey> {
    let WalletKey::Public(key) = expression else { return None };
    let (xpub, origin) = match key.as_ref() {
        DescriptorPublicKey::Single(_) => return None,
        DescriptorPublicKey::XPub(x) => (x.xkey, x.origin.clone()),
        DescriptorPublicKey::MultiXPub(x) => (x.xkey, x.origin.clone()),
    };
    let (fingerprint, path) = origin.unwrap_or_else(|| (xpub.fingerprint(), DerivationPath::master()));
    Some(AccountKey { fingerprint, path, xpub })
}

pub(super) fn account_keys(text: &str) -> Result<Vec<AccountKey>, WalletError> {
    let mut accounts: Vec<AccountKey> = Vec::new();
    for found in expressions(&parse(text)?).iter().filter_map(account) {
        if !accounts.contains(&found) {
            accounts.push(found);
        }
    }
    Ok(accounts)
}

fn source(expression: &WalletKey, network: Network, own: &BoundKeys, secp: &Secp256k1<VerifyOnly>) -> Result<KeySource, WalletError> {
    let name = || expression.to_string();
    let key = match expression {
        WalletKey::Pool if matches!(own, BoundKeys::Pool) => return Ok(KeySource::Pool),
        WalletKey::Pool => {
            return Err(WalletError::PoolWord { reason: "the word `pool` stands in the descriptor of a wallet of another kind".into() });
        }
        WalletKey::Public(key) => key.as_ref(),
    };
    let (paths, wildcard) = match key {
        DescriptorPublicKey::Single(_) => {
            let key = expression.single().filter(|key| key.compressed).ok_or_else(|| WalletError::Uncompressed { key: name() })?;
            return Ok(KeySource::Single { key, ours: matches!(own, BoundKeys::Hsm { public_key } if *public_key == key) });
        }
        DescriptorPublicKey::XPub(x) => (std::slice::from_ref(&x.derivation_path), x.wildcard),
        DescriptorPublicKey::MultiXPub(x) => (x.derivation_paths.paths().as_slice(), x.wildcard),
    };
    if wildcard == Wildcard::Hardened || key.has_hardened_step() {
        return Err(WalletError::Hardened { key: name() });
    }
    let account = account(expression).ok_or_else(|| WalletError::Syntax { reason: format!("{} is no extended key", name()) })?;
    if account.xpub.network != NetworkKind::from(network) {
        return Err(WalletError::WrongNetwork { key: name(), network });
    }
    let mut branches = Vec::with_capacity(paths.len());
    for path in paths {
        let xpub = account.xpub.derive_pub(secp, path).map_err(|e| WalletError::Syntax { reason: format!("{}: {e}", name()) })?;
        branches.push((account.path.extend(path), xpub));
    }
    let ours = match own {
        BoundKeys::Seed { accounts } => match accounts.iter().find(|ours| ours.xpub == account.xpub) {
            Some(ours) if *ours == account => true,
            Some(ours) => return Err(WalletError::Origin { found: account.to_string(), expected: ours.to_string() }),
            None => false,
        },
        BoundKeys::Hsm { .. } | BoundKeys::Pool => false,
    };
    Ok(KeySource::Extended(ExtendedKey { fingerprint: account.fingerprint, ours, wildcard: wildcard == Wildcard::Unhardened, branches }))
}

/// All of our keys stand in the descriptor.
fn check_own(own: &BoundKeys, keys: &HashMap<WalletKey, KeySource>) -> Result<(), WalletError> {
    match own {
        BoundKeys::Hsm { public_key } => {
            let there = keys.values().any(|source| matches!(source, KeySource::Single { ours: true, .. }));
            if there { Ok(()) } else { Err(WalletError::OwnKeyMissing { key: public_key.to_string() }) }
        }
        BoundKeys::Pool => {
            let there = keys.values().any(|source| matches!(source, KeySource::Pool));
            let reason = "the descriptor of a pool wallet holds the word `pool` where its key goes: wpkh(pool)";
            if there { Ok(()) } else { Err(WalletError::PoolWord { reason: reason.into() }) }
        }
        BoundKeys::Seed { accounts } => {
            if accounts.is_empty() {
                return Err(WalletError::OwnKeyMissing { key: "(none was given)".into() });
            }
            let there: Vec<AccountKey> = keys.keys().filter_map(account).collect();
            match accounts.iter().find(|account| !there.contains(account)) {
                None => Ok(()),
                Some(missing) => Err(WalletError::OwnKeyMissing { key: missing.to_string() }),
            }
        }
    }
}

/// True for two branches, false for a single address.
fn check_branches(expressions: &[WalletKey]) -> Result<bool, WalletError> {
    use miniscript::MiniscriptKey as _;
    let pool = expressions.contains(&WalletKey::Pool);
    let wildcard = expressions.iter().any(WalletKey::has_wildcard);
    let multipath: Vec<&WalletKey> = expressions.iter().filter(|key| key.num_der_paths() > 1).collect();
    if let Some(odd) = multipath.iter().find(|key| key.num_der_paths() != 2) {
        return Err(WalletError::Branches { reason: format!("{odd} has {} branches", odd.num_der_paths()) });
    }
    let wrong = |reason: &str| Err(WalletError::Branches { reason: reason.into() });
    match (pool || wildcard, pool || !multipath.is_empty()) {
        (true, true) => Ok(true),
        (false, false) => Ok(false),
        (true, false) => wrong("the descriptor has a `*` and one branch only, so change could not be told from payments"),
        (false, true) => wrong("the descriptor has branches <…;…> and no `*`"),
    }
}
