//! Wallets of every kind and script, with private keys that the test knows.

use std::str::FromStr as _;

use bitcoin::{
    EcdsaSighashType, Network, Psbt, PublicKey, Sequence, TapSighashType,
    bip32::{DerivationPath, Xpriv, Xpub},
    ecdsa,
    hashes::{Hash as _, sha256},
    key::TapTweak as _,
    secp256k1::{All, Keypair, Message, Secp256k1, SecretKey},
    taproot,
};
use miniscript::{DefiniteDescriptorKey, Descriptor};
use postern_signer::{
    analysis::{Scheme, SigningTask, SpendPlan},
    keystore::{AccountKey, BoundKeys},
    wallet::{KeyLocator, Position, Wallet},
};
use postern_testkit::spend::Scripts;

pub(crate) const GAP: u32 = 12;
const NOBODY: &str = "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0";

/// Kind and descriptor; `@` is our key or account, SECOND another account of ours, OTHER a cosigner's account, THEIRS his key.
const KINDS: [(&str, &str); 21] = [
    ("hsm", "pkh(@)"),
    ("hsm", "wpkh(@)"),
    ("hsm", "sh(wpkh(@))"),
    ("hsm", "wsh(sortedmulti(2,@,THEIRS))"),
    ("hsm", "wsh(and_v(v:pk(@),older(2)))"),
    ("seed", "pkh(@)"),
    ("seed", "wpkh(@)"),
    ("seed", "sh(wpkh(@))"),
    ("seed", "wsh(sortedmulti(2,@,OTHER))"),
    ("seed", "wsh(or_d(pk(OTHER),and_v(v:pk(@),older(2))))"),
    ("seed", "wsh(multi(2,@,SECOND))"),
    ("seed", "tr(@)"),
    ("seed", "tr(@,{pk(OTHER),and_v(v:pk(SECOND),older(2))})"),
    ("seed", "tr(NOBODY,{and_v(v:pk(OTHER),older(9)),multi_a(2,@,OTHER)})"),
    ("seed", "tr(OTHER,pk(@))"),
    ("seed", "tr(NOBODY,{pk(@),and_v(v:pk(OTHER),older(2))})"),
    ("pool", "pkh(@)"),
    ("pool", "wpkh(@)"),
    ("pool", "sh(wpkh(@))"),
    ("pool", "wsh(and_v(v:pk(@),older(2)))"),
    ("pool", "wsh(sortedmulti(2,@,OTHER))"),
];

/// A wallet and its keys.
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) wallet: Wallet,
    /// Its scripts can be spent two blocks after they were paid.
    pub(crate) older: bool,
    secret: String,
}

fn secp() -> Secp256k1<All> {
    Secp256k1::new()
}

fn secret(name: &str) -> SecretKey {
    SecretKey::from_slice(sha256::Hash::hash(name.as_bytes()).as_ref()).unwrap()
}

fn public(name: &str) -> PublicKey {
    PublicKey::new(secret(name).public_key(&secp()))
}

fn master(name: &str) -> Xpriv {
    Xpriv::new_master(Network::Regtest, sha256::Hash::hash(name.as_bytes()).as_ref()).unwrap()
}

fn account(seed: &str, path: &str) -> AccountKey {
    let path = DerivationPath::from_str(path).unwrap();
    let master = master(seed);
    let xpub = Xpub::from_priv(&secp(), &master.derive_priv(&secp(), &path).unwrap());
    AccountKey { fingerprint: master.fingerprint(&secp()), path, xpub }
}

/// All of them.
pub(crate) fn all() -> Vec<Site> {
    KINDS.iter().map(|(kind, template)| Site::new(kind, template)).collect()
}

impl Site {
    fn new(kind: &str, template: &str) -> Self {
        let name = format!("{kind} {template}");
        let (first, second) = (account(&name, "84'/1'/0'"), account(&name, "84'/1'/7'"));
        let single = public(&name);
        let (own, keys) = match kind {
            "hsm" => (single.to_string(), BoundKeys::Hsm { public_key: single }),
            "pool" => ("pool".into(), BoundKeys::Pool),
            _ => {
                let mut accounts = vec![first.clone()];
                if template.contains("SECOND") {
                    accounts.push(second.clone());
                }
                (format!("{first}/<0;1>/*"), BoundKeys::Seed { accounts })
            }
        };
        let text = template
            .replace("OTHER", &format!("{}/<0;1>/*", account("cosigner", "48'/1'/0'")))
            .replace("SECOND", &format!("{second}/<0;1>/*"))
            .replace("THEIRS", &public("cosigner").to_string())
            .replace("NOBODY", NOBODY)
            .replace('@', &own);
        let wallet = Wallet::new("hot", Network::Regtest, &text, GAP, keys).unwrap();
        let site = Self { older: template.contains("older(2)"), wallet, secret: name.clone(), name };
        if kind == "pool" {
            for branch in 0..2 {
                let keys: Vec<PublicKey> = (0..GAP).map(|index| public(&site.pool_name(Position { branch, index }))).collect();
                site.wallet.add_pool_keys(branch, 0, &keys).unwrap();
            }
        }
        site
    }

    fn pool_name(&self, position: Position) -> String {
        format!("{} {position}", self.secret)
    }

    /// The sequence that its scripts want.
    pub(crate) fn sequence(&self) -> Option<Sequence> {
        self.older.then(|| Sequence::from_height(2))
    }

    /// The descriptor at a position, by miniscript alone.
    pub(crate) fn descriptor(&self, position: Position) -> Descriptor<DefiniteDescriptorKey> {
        let text = self.wallet.descriptor();
        let text = text.split('#').next().unwrap().replace("pool", &public(&self.pool_name(position)).to_string());
        let scripts = Scripts::new(&text).unwrap();
        let branch = if scripts.branches() == 1 { 0 } else { position.branch };
        scripts.at(branch, if self.wallet.branches() == 1 { 0 } else { position.index }).unwrap()
    }

    fn secret_of(&self, locator: &KeyLocator) -> SecretKey {
        match locator {
            KeyLocator::Hsm => secret(&self.secret),
            KeyLocator::Pool(position) => secret(&self.pool_name(*position)),
            KeyLocator::Seed(path) => master(&self.secret).derive_priv(&secp(), path).unwrap().private_key,
        }
    }

    /// Signs the plan's digests with our keys, and for the cosigner with his.
    pub(crate) fn sign(&self, psbt: &mut Psbt, plan: &SpendPlan) {
        for task in plan.tasks() {
            let key = self.secret_of(&task.key.locator);
            assert_eq!(PublicKey::new(key.public_key(&secp())), task.key.public_key, "{}: another key than its locator finds", self.name);
            put(psbt, task, &key);
            let position = plan.inputs().iter().find(|i| i.input == task.input).unwrap().position;
            if let Some(key) = self.cosigners(position) {
                let mut task = task.clone();
                task.key.public_key = PublicKey::new(key.public_key(&secp()));
                put(psbt, &task, &key);
            }
        }
    }

    /// The cosigner signs where his signature is needed beside ours.
    fn cosigners(&self, position: Position) -> Option<SecretKey> {
        let needed = self.name.contains("sortedmulti") || self.name.contains("multi_a");
        if !needed {
            return None;
        }
        if self.name.contains("THEIRS") {
            return Some(secret("cosigner"));
        }
        let path = DerivationPath::from_str(&format!("48'/1'/0'/{}/{}", position.branch, position.index)).unwrap();
        Some(master("cosigner").derive_priv(&secp(), &path).unwrap().private_key)
    }
}

fn put(psbt: &mut Psbt, task: &SigningTask, key: &SecretKey) {
    let secp = secp();
    let input = &mut psbt.inputs[task.input as usize];
    let message = Message::from_digest(task.digest);
    let pair = Keypair::from_secret_key(&secp, key);
    let sighash_type = if task.sighash_byte.is_some() { TapSighashType::All } else { TapSighashType::Default };
    match task.scheme {
        Scheme::Ecdsa => {
            let signature = ecdsa::Signature { signature: secp.sign_ecdsa(&message, key), sighash_type: EcdsaSighashType::All };
            input.partial_sigs.insert(task.key.public_key, signature);
        }
        Scheme::SchnorrKeyPath { merkle_root } => {
            let signature = secp.sign_schnorr(&message, &pair.tap_tweak(&secp, merkle_root).to_keypair());
            input.tap_key_sig = Some(taproot::Signature { signature, sighash_type });
        }
        Scheme::SchnorrLeaf { leaf } => {
            let signature = secp.sign_schnorr(&message, &pair);
            let x_only = task.key.public_key.inner.x_only_public_key().0;
            input.tap_script_sigs.insert((x_only, leaf), taproot::Signature { signature, sighash_type });
        }
    }
}
