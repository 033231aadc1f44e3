#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

struct Only(TlsPin);

impl PinCheck for Only {
    fn is_known(&self, pin: &TlsPin) -> bool {
        *pin == self.0
    }
}

fn identity() -> TlsIdentity {
    let folder = tempfile::tempdir().unwrap();
    TlsIdentity::load_or_create(&folder.path().join("key")).unwrap()
}

/// Both ends' outcome of a handshake and of one byte each way: TLS 1.3 tells the client of a refused certificate only then.
async fn meet(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> (std::io::Result<()>, std::io::Result<()>) {
    let (near, far) = duplex(64 * 1024);
    let dial = async {
        let mut stream = TlsConnector::from(client).connect(ServerName::try_from(SERVER_NAME).unwrap(), near).await?;
        stream.write_all(b"?").await?;
        stream.flush().await?;
        stream.read_u8().await.map(drop)
    };
    let listen = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.read_u8().await?;
        stream.write_all(b"!").await?;
        stream.flush().await
    };
    tokio::join!(dial, listen)
}

#[tokio::test]
async fn two_ends_that_pinned_each_other_meet() {
    let (link, door) = (identity(), identity());
    let client = client_config(&link, door.pin()).unwrap();
    let server = server_config(&door, Arc::new(Only(link.pin()))).unwrap();
    let (near, far) = meet(client, server).await;
    near.unwrap();
    far.unwrap();
}

#[tokio::test]
async fn a_server_with_another_key_is_refused() {
    let (link, door, other) = (identity(), identity(), identity());
    let client = client_config(&link, other.pin()).unwrap();
    let server = server_config(&door, Arc::new(Only(link.pin()))).unwrap();
    let (near, far) = meet(client, server).await;
    assert!(near.is_err() && far.is_err());
}

#[tokio::test]
async fn a_client_with_an_unknown_key_is_refused() {
    let (link, door, other) = (identity(), identity(), identity());
    let client = client_config(&link, door.pin()).unwrap();
    let server = server_config(&door, Arc::new(Only(other.pin()))).unwrap();
    let (near, far) = meet(client, server).await;
    assert!(near.is_err() && far.is_err());
}

#[tokio::test]
async fn a_client_without_a_key_is_refused() {
    let (link, door) = (identity(), identity());
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedServer::new(door.pin(), provider())))
        .with_no_client_auth();
    let server = server_config(&door, Arc::new(Only(link.pin()))).unwrap();
    let (near, far) = meet(Arc::new(client), server).await;
    assert!(near.is_err() && far.is_err());
}

#[tokio::test]
async fn a_client_that_shows_anothers_certificate_without_its_key_is_refused() {
    let (link, door, thief) = (identity(), identity(), identity());
    let stolen = Arc::new(StolenCertificate(Arc::new(rustls::sign::CertifiedKey::new(
        vec![link.certificate()],
        ring::sign::any_supported_type(&thief.private_key()).unwrap(),
    ))));
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedServer::new(door.pin(), provider())))
        .with_client_cert_resolver(stolen);
    client.resumption = Resumption::disabled();
    let server = server_config(&door, Arc::new(Only(link.pin()))).unwrap();
    let (near, far) = meet(Arc::new(client), server).await;
    assert!(near.is_err() && far.is_err());
}

#[derive(Debug)]
struct StolenCertificate(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for StolenCertificate {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let (link, door) = (identity(), identity());
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedServer::new(door.pin(), provider())))
        .with_client_auth_cert(vec![link.certificate()], link.private_key())
        .unwrap();
    let server = server_config(&door, Arc::new(Only(link.pin()))).unwrap();
    let (near, far) = meet(Arc::new(client), server).await;
    assert!(near.is_err() && far.is_err());
}

#[test]
fn a_pin_reads_back_as_written_and_survives_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let made = TlsIdentity::load_or_create(&path).unwrap();
    let loaded = TlsIdentity::load(&path).unwrap();
    assert_eq!(made.pin(), loaded.pin());
    assert_ne!(made.certificate(), loaded.certificate(), "the certificate is made afresh");
    assert_eq!(made.pin().to_string().parse::<TlsPin>().unwrap(), made.pin());
    assert!("sha256:00".parse::<TlsPin>().is_err());
}
