//! Who may come in: each paired signer's TLS pin and onion client key.

use std::sync::Arc;

use postern_link::{
    tls::{PinCheck, TlsPin},
    tor::ClientAuthPublic,
};
use tokio::sync::watch;

/// A signer whose link may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairedSigner {
    /// Its name here.
    pub name: String,
    /// Its link's TLS key.
    pub tls_pin: TlsPin,
    /// Its link's key for finding the onion service.
    pub client_auth: ClientAuthPublic,
}

/// Which signer a request comes from; in the extensions of every request that the door passes on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SignerName(pub Arc<str>);

/// Knows the paired signers now and tells when they change.
pub trait Pins: Send + Sync + 'static {
    /// The signers, watched: the door follows changes without a restart.
    fn signers(&self) -> watch::Receiver<Arc<[PairedSigner]>>;
}

/// [`Pins`] in memory. Clones share the table.
#[derive(Debug, Clone)]
pub struct PinTable(watch::Sender<Arc<[PairedSigner]>>);

impl PinTable {
    /// With these signers.
    #[must_use]
    pub fn new(signers: Vec<PairedSigner>) -> Self {
        Self(watch::Sender::new(signers.into()))
    }

    /// From now on these. Connections of signers that are gone, or have another key, end. Cheap when nothing changed.
    pub fn replace(&self, signers: Vec<PairedSigner>) {
        self.0.send_if_modified(|current| {
            let changed = **current != *signers;
            if changed {
                *current = signers.into();
            }
            changed
        });
    }
}

impl Pins for PinTable {
    fn signers(&self) -> watch::Receiver<Arc<[PairedSigner]>> {
        self.0.subscribe()
    }
}

/// The name that belongs to a key, now.
pub(super) fn name_of(signers: &watch::Receiver<Arc<[PairedSigner]>>, pin: &TlsPin) -> Option<Arc<str>> {
    signers.borrow().iter().find(|signer| signer.tls_pin == *pin).map(|signer| signer.name.as_str().into())
}

/// The handshake's question.
pub(super) struct Known(pub(super) watch::Receiver<Arc<[PairedSigner]>>);

impl PinCheck for Known {
    fn is_known(&self, pin: &TlsPin) -> bool {
        name_of(&self.0, pin).is_some()
    }
}
