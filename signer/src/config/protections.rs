//! Which protections a configuration turns on, and which it leaves off.

use super::{AnchorKind, Config, Disclose, KeystoreTable, OnForgery};
use crate::{
    policy::rules::{Destinations, Raise},
    protection::Protection,
    tpm::Tpm,
};

/// The anchor cannot be copied and put back.
const IN_HARDWARE: &str = "anchor-in-hardware";

impl Config {
    /// Every protection that the configuration decides, on or off. Those of the machine are [`crate::sandbox`]'s.
    #[must_use]
    pub fn protections(&self) -> Vec<Protection> {
        let mut list = vec![
            Protection::new(
                "rate",
                self.is_rated(),
                "money leaves at a limited rate",
                "no [limits] rate: everything up to the total may leave at once",
            ),
            Protection::new(
                "total",
                self.is_capped(),
                "a total ends what may leave without a command",
                "no [limits] total: over a long time everything may leave",
            ),
        ];
        list.extend(self.anchored());
        list.push(Protection::new(
            "raise-by-command",
            self.raise == Raise::Command,
            "limits are raised only by a managers' command",
            "[limits] raise = \"config\": whoever can edit the configuration can let everything out",
        ));
        let managers = self.managers.managers.len();
        list.push(match self.managers.quorum {
            _ if managers == 0 => Protection::off("quorum", "no [commands]: nobody can raise a total, freeze or unfreeze"),
            1 => Protection::off("quorum", "[commands] quorum = 1: a single manager can let everything out"),
            quorum => Protection::on("quorum", format!("a command takes {quorum} of {managers} managers")),
        });
        list.push(Protection::new(
            "forgery-lock",
            managers > 0 && self.managers.on_forgery == OnForgery::Lock,
            "a forged command locks what it names, until a quorum unlocks it",
            "a forged command raises an alarm and locks nothing",
        ));
        list.push(Protection::new(
            "discreet",
            self.disclose == Disclose::Codes,
            "gates are told codes, not the limits' numbers",
            "[signer] disclose = \"full\": gates, and who has taken them over, learn the limits' numbers",
        ));
        for (name, wallet) in &self.wallets {
            let (fee, policy) = (wallet.rules.fee, &wallet.policy);
            let capped = fee.max_sat.is_some() || fee.max_rate_sat_per_kvb.is_some() || fee.max_share_ppm.is_some();
            list.push(if capped {
                Protection::on("fee-cap", format!("wallet `{name}` caps its fees"))
            } else {
                Protection::off("fee-cap", format!("[wallet.{name}] has no fee cap: up to the limits, everything may leave as fees"))
            });
            list.push(match &policy.destinations {
                Destinations::Any => Protection::off("destinations", format!("wallet `{name}` pays to anyone")),
                Destinations::Scripts(scripts) => {
                    Protection::on("destinations", format!("wallet `{name}` pays only to {} addresses", scripts.len()))
                }
            });
            if wallet.rules.allow_foreign_inputs {
                let words = format!("[wallet.{name}] allow_foreign_inputs: transactions mix this wallet's money with others'");
                list.push(Protection::off("own-inputs", words));
            }
        }
        list
    }

    /// The same with what the anchor's TPM says of itself, for whoever is on the machine and not yet enclosed.
    #[must_use]
    pub fn protections_here(&self) -> Vec<Protection> {
        let mut list = self.protections();
        let table = self.anchor.keystore.as_ref().and_then(|name| self.keystores.get(name)?.tpm());
        let Some(table) = table.filter(|_| self.anchor.kind == AnchorKind::Tpm) else { return list };
        let words = match Tpm::new(table.tcti.get_ref().clone()).with(|tpm| tpm.about()) {
            Ok(about) => about.software().map(|software| {
                format!("the anchor's TPM is software ({software}): whoever puts its files back puts the old anchor back with the ledger")
            }),
            Err(e) => Some(format!("whether the anchor's TPM is a chip cannot be told: {e}")),
        };
        if let (Some(words), Some(place)) = (words, list.iter_mut().find(|protection| protection.name == IN_HARDWARE)) {
            *place = Protection::off(IN_HARDWARE, words);
        }
        list
    }

    /// The anchor, and whether it can be put back to an old state together with the ledger.
    fn anchored(&self) -> Vec<Protection> {
        let name = "anchor";
        let Some(keystore) = self.anchor.keystore.as_deref().filter(|_| self.anchor.kind != AnchorKind::None) else {
            let words = "no [anchor]: a ledger restored from an old copy is not noticed, and the rates start empty at each start";
            return vec![Protection::off(name, words)];
        };
        let noticed = |what: &str| {
            Protection::on(name, format!("a ledger put back from an old copy is noticed by the {what} of keystore `{keystore}`"))
        };
        match self.keystores.get(keystore) {
            // What the TPM is can be asked: `protections_here` does.
            Some(KeystoreTable::Tpm(_)) => {
                vec![
                    noticed("TPM"),
                    Protection::on(IN_HARDWARE, "the anchor is in the TPM's memory, which a chip does not let be copied and put back"),
                ]
            }
            table => vec![
                noticed("token"),
                Protection::new(
                    IN_HARDWARE,
                    !table.is_some_and(KeystoreTable::is_softhsm),
                    "the anchor is in the token, which cannot be copied and put back",
                    "the anchor is on a SoftHSM token, which is files: whoever puts an old disk back puts the old anchor back with it",
                ),
            ],
        }
    }

    /// Whether a total holds for everything.
    pub(super) fn is_capped(&self) -> bool {
        self.limits.total_sat.is_some()
            || (!self.wallets.is_empty() && self.wallets.values().all(|wallet| wallet.policy.limits.total_sat.is_some()))
    }

    /// Whether a rate holds for everything.
    pub(super) fn is_rated(&self) -> bool {
        !self.limits.rates.is_empty()
            || (!self.wallets.is_empty() && self.wallets.values().all(|wallet| !wallet.policy.limits.rates.is_empty()))
    }
}
