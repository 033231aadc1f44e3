//! Mutual TLS 1.3 with pinned keys, for both ends: the door of the coordinator uses it as well.
//!
//! A peer is its public key: SHA-256 of the SubjectPublicKeyInfo, exchanged by hand at pairing. Names, dates, issuers and
//! certificate authorities mean nothing here, so there is nothing to expire, renew or mis-issue. That the peer holds the private key is
//! proven in the handshake as in any TLS (RFC 8446 §4.4.3). Sessions are never resumed: each connection proves both keys.

mod identity;
mod pin;
mod verify;

use std::sync::Arc;

use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    server::NoServerSessionStorage,
    version::TLS13,
};

pub use identity::TlsIdentity;
pub use pin::{PinError, TlsPin};
pub use verify::PinCheck;
use verify::{PinnedClients, PinnedServer};

/// The name in the handshake. It carries no trust and tells a listener nothing.
pub const SERVER_NAME: &str = "postern.invalid";

/// Makes ring the process-wide provider of cryptography; Arti needs one and aborts without. Safe to call again.
pub fn install_crypto_provider() {
    // Fails only when there is one already, which is as good.
    let _ = ring::default_provider().install_default();
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The dialling end: shows `identity`, accepts exactly the key `server`.
///
/// # Errors
/// [`rustls::Error`] when the identity cannot be used.
pub fn client_config(identity: &TlsIdentity, server: TlsPin) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = provider();
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous() // rustls' word for any verifier but web certificate authorities
        .with_custom_certificate_verifier(Arc::new(PinnedServer::new(server, provider)))
        .with_client_auth_cert(vec![identity.certificate()], identity.private_key())?;
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// The listening end: shows `identity`, accepts clients whose key `check` knows at that moment.
///
/// # Errors
/// [`rustls::Error`] when the identity cannot be used.
pub fn server_config(identity: &TlsIdentity, check: Arc<dyn PinCheck>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = provider();
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(PinnedClients::new(check, provider)))
        .with_single_cert(vec![identity.certificate()], identity.private_key())?;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests;
