//! Wallets of every kind of script, with keys that everybody knows.

use std::{str::FromStr as _, sync::OnceLock};

use bitcoin::{
    Network, PublicKey,
    bip32::{DerivationPath, Xpriv, Xpub},
    hashes::{Hash as _, sha256},
    secp256k1::Secp256k1,
};
use postern_signer::{
    keystore::{AccountKey, BoundKeys},
    policy::rules::SpendRules,
    wallet::Wallet,
};

pub const GAP: u32 = 4;

/// A wallet and the rules of its analysis.
pub struct Site {
    pub wallet: Wallet,
    pub rules: SpendRules,
}

fn account(seed: &str, path: &str) -> AccountKey {
    let secp = Secp256k1::new();
    let master = Xpriv::new_master(Network::Regtest, sha256::Hash::hash(seed.as_bytes()).as_ref()).unwrap();
    let path = DerivationPath::from_str(path).unwrap();
    let xpub = Xpub::from_priv(&secp, &master.derive_priv(&secp, &path).unwrap());
    AccountKey { fingerprint: master.fingerprint(&secp), path, xpub }
}

fn seed(template: &str, rules: SpendRules) -> Site {
    let (own, other) = (account("seed", "84'/1'/0'"), account("cosigner", "48'/1'/0'"));
    let text = template.replace("OTHER", &format!("{other}/<0;1>/*")).replace('@', &format!("{own}/<0;1>/*"));
    Site { wallet: Wallet::new("fuzz", Network::Regtest, &text, GAP, BoundKeys::Seed { accounts: vec![own] }).unwrap(), rules }
}

fn hsm(template: &str) -> Site {
    let xpub = account("hsm", "0'").xpub;
    let key = PublicKey::new(xpub.public_key);
    let text = template.replace('@', &key.to_string());
    Site {
        wallet: Wallet::new("fuzz", Network::Regtest, &text, GAP, BoundKeys::Hsm { public_key: key }).unwrap(),
        rules: SpendRules::default(),
    }
}

/// All of them, the ordinary one first.
pub fn all() -> &'static [Site] {
    static SITES: OnceLock<Vec<Site>> = OnceLock::new();
    SITES.get_or_init(|| {
        let strict = SpendRules::default;
        let joint = SpendRules { allow_foreign_inputs: true, allow_op_return: true, max_locktime_height: Some(800_000), ..strict() };
        vec![
            seed("wpkh(@)", strict()),
            seed("sh(wpkh(@))", strict()),
            seed("pkh(@)", strict()),
            seed("wsh(sortedmulti(2,@,OTHER))", strict()),
            seed("wsh(or_d(pk(OTHER),and_v(v:pk(@),older(144))))", strict()),
            seed("tr(@)", strict()),
            seed("tr(OTHER,{pk(@),pk(OTHER)})", strict()),
            seed("wpkh(@)", joint),
            hsm("wpkh(@)"),
        ]
    })
}
