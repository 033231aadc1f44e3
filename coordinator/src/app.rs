//! What the components share: configuration, store, node, and a bell to wake each other within one process.

use std::{collections::BTreeMap, sync::Arc};

use rand::RngCore as _;
use tokio::sync::Notify;

use crate::{
    config::{Config, WalletTable},
    node::Node,
    store::Store,
    wallet::{Wallet, WalletError},
};

/// A configured wallet.
#[derive(Debug)]
pub struct WalletEntry {
    /// Its public half.
    pub wallet: Wallet,
    /// Its table.
    pub table: WalletTable,
}

/// What the components share.
pub struct App {
    /// The file.
    pub config: Config,
    /// Everything remembered.
    pub store: Arc<dyn Store>,
    /// The chain.
    pub node: Arc<dyn Node>,
    /// Wallets by name.
    pub wallets: BTreeMap<String, WalletEntry>,
    /// Rung when there may be work for a component.
    pub work: Notify,
    /// Rung when there may be work for a signer.
    pub requests: Notify,
    /// Names this process in leases.
    pub holder: String,
}

impl App {
    /// Puts the parts together.
    ///
    /// # Errors
    /// [`WalletError`]; a loaded [`Config`] has none.
    pub fn new(config: Config, store: Arc<dyn Store>, node: Arc<dyn Node>) -> Result<Self, WalletError> {
        let mut wallets = BTreeMap::new();
        for (name, table) in &config.wallet {
            wallets.insert(name.clone(), WalletEntry { wallet: config.wallet(name, table)?, table: table.clone() });
        }
        let holder = random_id("p");
        Ok(Self { config, store, node, wallets, work: Notify::new(), requests: Notify::new(), holder })
    }
}

/// An unguessable id: a prefix and 128 random bits in hex.
#[must_use]
pub fn random_id(prefix: &str) -> String {
    let mut bytes = [0_u8; 16];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    format!("{prefix}_{}", hex::encode(bytes))
}

/// Why a component's step was not done. The next step tries again; nothing is lost.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The store.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The node.
    #[error(transparent)]
    Node(#[from] crate::node::NodeError),
    /// A wallet's scripts.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// A transaction of the store cannot be read.
    #[error("member {0} in the database cannot be read")]
    Member(crate::store::MemberId),
    /// The node follows another network.
    #[error("bitcoind is on {found}, the configuration on {wanted}")]
    Network {
        /// The node's.
        found: bitcoin::Network,
        /// Ours.
        wanted: bitcoin::Network,
    },
}

/// Result of a step.
pub type Step<T> = Result<T, StepError>;
