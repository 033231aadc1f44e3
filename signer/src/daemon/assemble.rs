//! From the configuration to the daemon's parts: keystores are opened, wallets are made, users are looked up.

use std::{collections::BTreeMap, time::Duration};

use serde_spanned::Spanned;

use super::{
    peer::Roles,
    server::Terms,
    start::{Parts, StartError, WalletPart},
    users,
};
use crate::{
    anchor::{Anchor, NoAnchor},
    attest::{self, Attesting},
    command::Manager,
    config::{Config, Disclose, OnForgery},
    keystore::{KeystoreError, LoadedKeystore, OpenKeystore},
    wallet::WalletKind,
};

/// How long the start waits for a token. One that comes later is used when it comes.
const TOKEN_PATIENCE: Duration = Duration::from_secs(10);
/// Most addresses that a wallet without a configured pool hands out on a branch.
const ADDRESSES_MAX_DEFAULT: u32 = 200_000;

/// What the start reads from outside the sandbox: the tokens' libraries, PINs, the users' numbers, the firmware's event log. It has
/// started no thread yet.
pub struct Outside {
    keystores: BTreeMap<String, LoadedKeystore>,
    roles: Roles,
    event_log: Option<Vec<u8>>,
}

impl Outside {
    /// Loads and reads what the configuration names.
    ///
    /// # Errors
    /// [`StartError`]: what is wrong, and in which table.
    pub fn read(config: &Config) -> Result<Self, StartError> {
        let mut keystores = BTreeMap::new();
        for name in config.keystores.keys() {
            let table =
                config.keystore(name).ok_or_else(|| StartError::KeystoreUnknown { what: "keystore".into(), keystore: name.clone() })?;
            let loaded = LoadedKeystore::load(table).map_err(|source| StartError::Keystore { keystore: name.clone(), source })?;
            keystores.insert(name.clone(), loaded);
        }
        let terms = &config.socket_terms;
        let uids = |names: &[Spanned<String>]| names.iter().map(|name| users::uid(name.get_ref())).collect::<Result<Vec<u32>, _>>();
        let event_log = config.attesting().and_then(|(_, table)| attest::event_log(table.tcti.get_ref().device()?));
        Ok(Self { keystores, event_log, roles: Roles::new(uids(&terms.gates)?, uids(&terms.operators)?) })
    }
}

impl Parts {
    /// Opens what the configuration names.
    ///
    /// # Errors
    /// [`StartError`]: what is wrong, and in which table.
    pub fn new(config: &Config, outside: Outside) -> Result<Self, StartError> {
        let mut keystores: BTreeMap<String, OpenKeystore> = BTreeMap::new();
        for (name, loaded) in outside.keystores {
            let failed = |source| StartError::Keystore { keystore: name.clone(), source };
            let keystore = loaded.connect().map_err(failed)?;
            match keystore.wait_ready(TOKEN_PATIENCE).and_then(|()| keystore.prove_random()) {
                Err(source @ KeystoreError::Random { .. }) => return Err(failed(source)),
                Err(e) => log::error!(keystore = name.as_str(); "{e}"),
                Ok(()) => {}
            }
            keystores.insert(name, keystore);
        }
        let find = |what: &str, name: &str| {
            keystores.get(name).cloned().ok_or_else(|| StartError::KeystoreUnknown { what: what.into(), keystore: name.into() })
        };

        let mut wallets = Vec::new();
        for (name, table) in &config.wallets {
            let wallet = config.wallet(name, table).map_err(|source| StartError::Descriptor { wallet: name.clone(), source })?;
            wallets.push(WalletPart {
                wallet,
                rules: table.rules.clone(),
                keystore: find(&format!("wallet.{name}"), &table.keystore)?.shared(),
                addresses_max: if table.kind == WalletKind::Pool { table.pool_max } else { ADDRESSES_MAX_DEFAULT },
            });
        }
        let anchor: Box<dyn Anchor> = match &config.anchor.keystore {
            Some(name) => find("anchor", name)?
                .anchor(&config.name, config.anchor.nv_index)
                .map_err(|source| StartError::Keystore { keystore: name.clone(), source })?,
            None => Box::new(NoAnchor),
        };

        let attesting = config.attesting().and_then(|(name, table)| match keystores.get(name)? {
            OpenKeystore::Tpm(keystore) => Some(Attesting {
                tpm: keystore.tpm(),
                pcrs: table.pcrs.clone(),
                keystore: name.into(),
                state: config.state.clone(),
                event_log: outside.event_log,
            }),
            OpenKeystore::Pkcs11(_) => None,
        });
        let terms = &config.socket_terms;
        Ok(Self {
            name: config.name.clone(),
            network: config.network_name().into(),
            policy_hash: config.policy_hash(),
            state: config.state.clone(),
            socket: config.socket.clone(),
            roles: outside.roles,
            discloses: config.disclose == Disclose::Full,
            terms: Terms { in_flight: terms.max_in_flight.0, ..Terms::for_frames(terms.frame_max.0) },
            wallets,
            keystores: keystores.into_values().map(|keystore| keystore.shared()).collect(),
            rules: config.policy_rules(),
            lease_sat: config.anchor.lease_sat,
            anchor,
            managers: config.managers.managers.iter().map(|(name, key)| Manager { name: name.clone(), key: *key }).collect(),
            quorum: config.managers.quorum,
            locks_on_forgery: config.managers.on_forgery == OnForgery::Lock,
            attesting,
        })
    }
}
