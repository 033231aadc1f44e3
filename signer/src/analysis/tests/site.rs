//! Wallets with test keys, coins that they own, and PSBTs that spend them.

use std::{collections::BTreeMap, str::FromStr as _};

use bitcoin::{
    Amount, EcdsaSighashType, Network, OutPoint, Psbt, PublicKey, ScriptBuf, Sequence, TapSighashType, Transaction, TxIn, TxOut, Witness,
    absolute::LockTime,
    bip32::{DerivationPath, Xpriv, Xpub},
    ecdsa,
    hashes::{Hash as _, sha256},
    key::TapTweak as _,
    secp256k1::{All, Keypair, Message, Secp256k1, SecretKey},
    taproot,
    transaction::Version,
};
use miniscript::{
    DefiniteDescriptorKey, Descriptor, DescriptorPublicKey,
    psbt::{PsbtExt as _, PsbtInputExt as _, PsbtOutputExt as _},
};
use postern_protocol::refusal::Refusal;

use super::super::{Scheme, SigningTask, SpendPlan, analyze};
use crate::{
    keystore::{AccountKey, BoundKeys},
    policy::rules::SpendRules,
    wallet::{KeyLocator, Position, Wallet},
};

pub(super) const GAP: u32 = 20;
/// What a coin is worth unless said otherwise.
pub(super) const COIN_SAT: u64 = 1_000_000;

pub(super) fn secp() -> Secp256k1<All> {
    Secp256k1::new()
}

pub(super) fn secret(name: &str) -> SecretKey {
    SecretKey::from_slice(sha256::Hash::hash(name.as_bytes()).as_ref()).unwrap()
}

pub(super) fn public(name: &str) -> PublicKey {
    PublicKey::new(secret(name).public_key(&secp()))
}

pub(super) fn master(name: &str) -> Xpriv {
    Xpriv::new_master(Network::Regtest, sha256::Hash::hash(name.as_bytes()).as_ref()).unwrap()
}

/// An account of a test seed.
pub(super) fn account(seed: &str, path: &str) -> AccountKey {
    let path = DerivationPath::from_str(path).unwrap();
    let master = master(seed);
    let xpub = Xpub::from_priv(&secp(), &master.derive_priv(&secp(), &path).unwrap());
    AccountKey { fingerprint: master.fingerprint(&secp()), path, xpub }
}

fn pool_name(position: Position) -> String {
    format!("pool key {position}")
}

/// A wallet whose private keys the test knows.
pub(super) struct Site {
    pub(super) wallet: Wallet,
    pub(super) rules: SpendRules,
    /// The sequence of all inputs.
    pub(super) sequence: Sequence,
    /// Cosigners' seeds that sign besides us.
    cosigner: Option<&'static str>,
}

impl Site {
    fn new(descriptor: &str, keys: BoundKeys) -> Self {
        let wallet = Wallet::new("hot", Network::Regtest, descriptor, GAP, keys).unwrap();
        for branch in 0..2 {
            if wallet.kind() == crate::wallet::WalletKind::Pool {
                let keys: Vec<PublicKey> = (0..50).map(|index| public(&pool_name(Position { branch, index }))).collect();
                wallet.add_pool_keys(branch, 0, &keys).unwrap();
            }
        }
        Self { wallet, rules: SpendRules::default(), sequence: Sequence::ENABLE_RBF_NO_LOCKTIME, cosigner: None }
    }

    /// `KEY` stands for our key, `OTHER` for a cosigner's account.
    pub(super) fn hsm(descriptor: &str) -> Self {
        let key = public("hsm");
        Self::new(&fill(descriptor, &key.to_string()), BoundKeys::Hsm { public_key: key })
    }

    /// `KEY` stands for our account, `SECOND` for another one of ours, `OTHER` for a cosigner's.
    pub(super) fn seed(descriptor: &str) -> Self {
        let (first, second) = (account("seed", "84'/1'/0'"), account("seed", "84'/1'/7'"));
        let mut accounts = vec![first.clone()];
        if descriptor.contains("SECOND") {
            accounts.push(second.clone());
        }
        let text = descriptor.replace("SECOND", &format!("{second}/<0;1>/*"));
        Self::new(&fill(&text, &format!("{first}/<0;1>/*")), BoundKeys::Seed { accounts })
    }

    pub(super) fn pool(descriptor: &str) -> Self {
        Self::new(&fill(descriptor, "pool"), BoundKeys::Pool)
    }

    /// The ordinary wallet of most tests.
    pub(super) fn hot() -> Self {
        Self::seed("wpkh(KEY)")
    }

    pub(super) fn sequence(mut self, sequence: Sequence) -> Self {
        self.sequence = sequence;
        self
    }

    pub(super) fn cosigned(mut self) -> Self {
        self.cosigner = Some("cosigner");
        self
    }

    pub(super) fn rules(mut self, change: impl FnOnce(&mut SpendRules)) -> Self {
        change(&mut self.rules);
        self
    }

    /// Its descriptor at a position, by miniscript alone.
    pub(super) fn descriptor(&self, position: Position) -> Descriptor<DefiniteDescriptorKey> {
        let text = self.wallet.descriptor();
        let text = text.split('#').next().unwrap().replace("pool", &public(&pool_name(position)).to_string());
        let branches = Descriptor::<DescriptorPublicKey>::from_str(&text).unwrap().into_single_descriptors().unwrap();
        let branch = if branches.len() == 1 { &branches[0] } else { &branches[position.branch as usize] };
        branch.at_derivation_index(position.index).unwrap()
    }

    /// A transaction that pays a script at its output 1.
    pub(super) fn funding(script: ScriptBuf, sat: u64, salt: u64) -> Transaction {
        let outpoint = OutPoint { txid: bitcoin::Txid::from_raw_hash(bitcoin::hashes::sha256d::Hash::hash(&salt.to_le_bytes())), vout: 0 };
        let other =
            TxOut { value: Amount::from_sat(5_000), script_pubkey: ScriptBuf::new_p2wpkh(&public("someone").wpubkey_hash().unwrap()) };
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: outpoint,
                witness: Witness::from_slice(&[vec![7u8; 71], vec![2u8; 33]]),
                ..TxIn::default()
            }],
            output: vec![other, TxOut { value: Amount::from_sat(sat), script_pubkey: script }],
        }
    }

    pub(super) fn psbt(&self, spend: &Spend) -> Psbt {
        let coins: Vec<(Descriptor<DefiniteDescriptorKey>, Transaction)> = (0u64..)
            .zip(&spend.coins)
            .map(|(salt, (position, sat))| {
                let descriptor = self.descriptor(*position);
                let funding = Self::funding(descriptor.script_pubkey(), *sat, salt + 100 * u64::from(position.index));
                (descriptor, funding)
            })
            .collect();
        let outputs: Vec<(Option<Descriptor<DefiniteDescriptorKey>>, TxOut)> = spend
            .outputs
            .iter()
            .map(|output| match output {
                Out::Pay(script, sat) => (None, TxOut { value: Amount::from_sat(*sat), script_pubkey: script.clone() }),
                Out::Own(position, sat) => {
                    let descriptor = self.descriptor(*position);
                    let script_pubkey = descriptor.script_pubkey();
                    (Some(descriptor), TxOut { value: Amount::from_sat(*sat), script_pubkey })
                }
            })
            .collect();
        let input = coins.iter().map(|(_, funding)| TxIn {
            previous_output: OutPoint { txid: funding.compute_txid(), vout: 1 },
            sequence: self.sequence,
            ..TxIn::default()
        });
        let mut psbt = Psbt::from_unsigned_tx(Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: input.collect(),
            output: outputs.iter().map(|(_, txout)| txout.clone()).collect(),
        })
        .unwrap();
        for (fields, (descriptor, funding)) in psbt.inputs.iter_mut().zip(&coins) {
            fields.non_witness_utxo = Some(funding.clone());
            if !descriptor.script_pubkey().is_p2pkh() {
                fields.witness_utxo = Some(funding.output[1].clone());
            }
            fields.update_with_descriptor_unchecked(descriptor).unwrap();
        }
        for (fields, (descriptor, _)) in psbt.outputs.iter_mut().zip(&outputs) {
            if let Some(descriptor) = descriptor {
                fields.update_with_descriptor_unchecked(descriptor).unwrap();
            }
        }
        psbt
    }

    /// The usual payment, whose second coin is another's.
    pub(super) fn joint(&self, other: &Self) -> Psbt {
        let theirs = other.psbt(&Spend::one(vec![]));
        let mut psbt = self.psbt(&Spend::usual());
        psbt.unsigned_tx.input[1] = theirs.unsigned_tx.input[0].clone();
        psbt.inputs[1] = theirs.inputs[0].clone();
        psbt
    }

    pub(super) fn analyze(&self, psbt: &Psbt) -> Result<SpendPlan, Refusal> {
        analyze(&self.wallet, &self.rules, &psbt.serialize())
    }

    /// The private key of a task.
    pub(super) fn secret_of(&self, locator: &KeyLocator) -> SecretKey {
        match locator {
            KeyLocator::Hsm => secret("hsm"),
            KeyLocator::Pool(position) => secret(&pool_name(*position)),
            KeyLocator::Seed(path) => master("seed").derive_priv(&secp(), path).unwrap().private_key,
        }
    }

    /// Signs the plan's tasks as a keystore does, and for cosigners over the same digests.
    pub(super) fn sign(&self, psbt: &mut Psbt, plan: &SpendPlan) {
        for task in plan.tasks() {
            let key = self.secret_of(&task.key.locator);
            assert_eq!(PublicKey::new(key.public_key(&secp())), task.key.public_key, "the task names another key than its locator finds");
            put(psbt, task, &key);
            if let Some(cosigner) = self.cosigner {
                let last: Vec<_> = match &task.key.locator {
                    KeyLocator::Seed(path) => path.into_iter().rev().take(2).rev().copied().collect(),
                    _ => {
                        let position = plan.inputs().iter().find(|i| i.input == task.input).unwrap().position;
                        DerivationPath::from_str(&format!("m/{}/{}", position.branch, position.index))
                            .unwrap()
                            .into_iter()
                            .copied()
                            .collect()
                    }
                };
                let account = DerivationPath::from_str("48'/1'/0'").unwrap();
                let key = master(cosigner).derive_priv(&secp(), &account.extend(&last)).unwrap().private_key;
                let mut task = task.clone();
                task.key.public_key = PublicKey::new(key.public_key(&secp()));
                put(psbt, &task, &key);
            }
        }
    }

    /// Signs, finalises and verifies every signature and script by miniscript's interpreter.
    pub(super) fn finish(&self, psbt: &Psbt, plan: &SpendPlan) -> Transaction {
        let mut psbt = psbt.clone();
        self.sign(&mut psbt, plan);
        psbt.finalize_mut(&secp()).unwrap();
        psbt.extract(&secp()).unwrap()
    }
}

fn put(psbt: &mut Psbt, task: &SigningTask, key: &SecretKey) {
    let secp = secp();
    let input = &mut psbt.inputs[task.input as usize];
    let message = Message::from_digest(task.digest);
    let pair = Keypair::from_secret_key(&secp, key);
    let sighash_type = if task.sighash_byte.is_some() { TapSighashType::All } else { TapSighashType::Default };
    let x_only = task.key.public_key.inner.x_only_public_key().0;
    match task.scheme {
        Scheme::Ecdsa => {
            assert_eq!(task.sighash_byte, Some(1));
            let signature = secp.sign_ecdsa(&message, key);
            input.partial_sigs.insert(task.key.public_key, ecdsa::Signature { signature, sighash_type: EcdsaSighashType::All });
        }
        Scheme::SchnorrKeyPath { merkle_root } => {
            let signature = secp.sign_schnorr(&message, &pair.tap_tweak(&secp, merkle_root).to_keypair());
            input.tap_key_sig = Some(taproot::Signature { signature, sighash_type });
        }
        Scheme::SchnorrLeaf { leaf } => {
            let signature = secp.sign_schnorr(&message, &pair);
            input.tap_script_sigs.insert((x_only, leaf), taproot::Signature { signature, sighash_type });
        }
    }
}

fn fill(descriptor: &str, key: &str) -> String {
    descriptor.replace("KEY", key).replace("OTHER", &format!("{}/<0;1>/*", account("cosigner", "48'/1'/0'")))
}

/// A transaction to be built.
#[derive(Clone)]
pub(super) struct Spend {
    pub(super) coins: Vec<(Position, u64)>,
    pub(super) outputs: Vec<Out>,
}

#[derive(Clone)]
pub(super) enum Out {
    Pay(ScriptBuf, u64),
    Own(Position, u64),
}

pub(super) fn receive(index: u32) -> Position {
    Position { branch: 0, index }
}

pub(super) fn change(index: u32) -> Position {
    Position { branch: 1, index }
}

/// Somebody else's script.
pub(super) fn somebody() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&public("somebody").wpubkey_hash().unwrap())
}

impl Spend {
    /// Two coins, a payment of 1,500,000 sat, change, a fee of 2,000 sat.
    pub(super) fn usual() -> Self {
        Self {
            coins: vec![(receive(0), COIN_SAT), (receive(3), COIN_SAT)],
            outputs: vec![Out::Pay(somebody(), 1_500_000), Out::Own(change(2), 498_000)],
        }
    }
    /// The same for a wallet of a single address.
    pub(super) fn single() -> Self {
        Self {
            coins: vec![(receive(0), COIN_SAT), (receive(0), COIN_SAT)],
            outputs: vec![Out::Pay(somebody(), 1_500_000), Out::Own(receive(0), 498_000)],
        }
    }
    /// One coin, and these outputs.
    pub(super) fn one(outputs: Vec<Out>) -> Self {
        Self { coins: vec![(receive(0), COIN_SAT)], outputs }
    }
}

/// Wallets of every kind and script, by name.
pub(super) fn every_site() -> BTreeMap<&'static str, Site> {
    let locked = Sequence::from_height(144);
    let nobody = "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0";
    BTreeMap::from([
        ("hsm p2pkh", Site::hsm("pkh(KEY)")),
        ("hsm p2wpkh", Site::hsm("wpkh(KEY)")),
        ("hsm p2sh-p2wpkh", Site::hsm("sh(wpkh(KEY))")),
        ("hsm p2wsh multisig", Site::hsm("wsh(sortedmulti(2,KEY,OTHER))").cosigned()),
        ("hsm p2wsh single miniscript", Site::hsm("wsh(and_v(v:pk(KEY),older(144)))").sequence(locked)),
        ("seed p2pkh", Site::seed("pkh(KEY)")),
        ("seed p2wpkh", Site::seed("wpkh(KEY)")),
        ("seed p2sh-p2wpkh", Site::seed("sh(wpkh(KEY))")),
        ("seed p2wsh multisig", Site::seed("wsh(sortedmulti(2,KEY,OTHER))").cosigned()),
        ("seed p2wsh miniscript", Site::seed("wsh(or_d(pk(OTHER),and_v(v:pk(KEY),older(144))))").sequence(locked)),
        ("seed p2wsh two keys of ours", Site::seed("wsh(multi(2,KEY,SECOND))")),
        ("seed p2tr key path", Site::seed("tr(KEY)")),
        ("seed p2tr key path with a tree", Site::seed("tr(KEY,{pk(OTHER),and_v(v:pk(SECOND),older(144))})")),
        ("seed p2tr script path", Site::seed(&format!("tr({nobody},{{and_v(v:pk(OTHER),older(9)),multi_a(2,KEY,OTHER)}})")).cosigned()),
        ("seed p2tr cosigner's key path", Site::seed("tr(OTHER,pk(KEY))")),
        ("pool p2pkh", Site::pool("pkh(KEY)")),
        ("pool p2wpkh", Site::pool("wpkh(KEY)")),
        ("pool p2sh-p2wpkh", Site::pool("sh(wpkh(KEY))")),
        ("pool p2wsh miniscript", Site::pool("wsh(and_v(v:pk(KEY),older(144)))").sequence(locked)),
        ("pool p2wsh multisig", Site::pool("wsh(sortedmulti(2,KEY,OTHER))").cosigned()),
    ])
}
