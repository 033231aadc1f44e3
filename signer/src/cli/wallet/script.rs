//! `--script`: a word for a usual script, or a descriptor in which `@` stands for the signer's own key.

use anyhow::{Result, bail};
use bitcoin::{Network, bip32::DerivationPath};

use crate::wallet::WalletKind;

/// Stands for our own key.
const OWN: char = '@';

/// A descriptor in which our own key is still to be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScriptTemplate(String);

impl std::str::FromStr for ScriptTemplate {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let template = match text {
            "pkh" => "pkh(@)",
            "sh-wpkh" => "sh(wpkh(@))",
            "wpkh" => "wpkh(@)",
            "tr" => "tr(@)",
            other => other,
        };
        if !template.contains(OWN) {
            bail!(
                "write pkh, sh-wpkh, wpkh or tr, or a descriptor in which @ stands for this signer's key: wsh(sortedmulti(2,@,[…]xpub…/<0;1>/*))"
            );
        }
        if template.contains('#') {
            bail!("leave the checksum (#…) out: it changes when the key is filled in");
        }
        Ok(Self(template.into()))
    }
}

impl ScriptTemplate {
    /// The descriptor with our key in it; `key` is an expression without branches.
    pub(super) fn fill(&self, kind: WalletKind, key: &str) -> String {
        let ours = match kind {
            WalletKind::Hsm => key.to_owned(),
            WalletKind::Pool => "pool".into(),
            WalletKind::Seed => format!("{key}/<0;1>/*"),
        };
        self.0.replace(OWN, &ours)
    }

    /// The usual account of a seed for this script: BIP 44, 49, 84, 86, and BIP 48 for scripts of several keys.
    pub(super) fn account_path(&self, network: Network, account: u32) -> Result<DerivationPath> {
        let coin = u32::from(network != Network::Bitcoin);
        let text = if self.0.starts_with("pkh(") {
            format!("m/44h/{coin}h/{account}h")
        } else if self.0.starts_with("sh(wpkh(") {
            format!("m/49h/{coin}h/{account}h")
        } else if self.0.starts_with("wpkh(") {
            format!("m/84h/{coin}h/{account}h")
        } else if self.0.starts_with("tr(") {
            format!("m/86h/{coin}h/{account}h")
        } else {
            format!("m/48h/{coin}h/{account}h/2h")
        };
        Ok(text.parse()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> ScriptTemplate {
        text.parse().unwrap()
    }

    #[test]
    fn the_usual_scripts_are_words_and_all_others_descriptors() {
        assert_eq!(script("wpkh").fill(WalletKind::Seed, "[d34db33f/84h]tpub"), "wpkh([d34db33f/84h]tpub/<0;1>/*)");
        assert_eq!(script("sh-wpkh").fill(WalletKind::Hsm, "02aa"), "sh(wpkh(02aa))");
        assert_eq!(script("wsh(and_v(v:pk(@),older(144)))").fill(WalletKind::Pool, ""), "wsh(and_v(v:pk(pool),older(144)))");
    }

    #[test]
    fn a_script_without_a_place_for_our_key_is_refused() {
        for wrong in ["", "p2wpkh", "wpkh(02aa)", "wpkh(@)#qqqqqqqq"] {
            assert!(wrong.parse::<ScriptTemplate>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn accounts_stand_where_other_wallets_look_for_them() {
        let path = |text: &str, network| script(text).account_path(network, 3).unwrap().to_string();
        assert_eq!(path("wpkh", Network::Bitcoin), "84'/0'/3'");
        assert_eq!(path("tr", Network::Signet), "86'/1'/3'");
        assert_eq!(path("wsh(pk(@))", Network::Regtest), "48'/1'/3'/2'");
    }
}
