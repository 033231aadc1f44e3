#![allow(clippy::unwrap_used)]

use super::*;

const BRIDGE: &str = "192.0.2.83:80 0BAC39417268B96B9F514EF763FA6FBA1A788956";

fn built(table: &TorTable) -> Result<TorClientConfig, TorError> {
    let folder = tempfile::tempdir().unwrap();
    table.client_config(folder.path(), None)
}

fn private(folder: &Path) -> TorTable {
    let path = folder.join("net.toml");
    let (a, b, c) = ("A".repeat(40), "B".repeat(40), "A".repeat(43));
    let fallback = |port: u16| format!("[[fallbacks]]\nrsa = \"{b}\"\ned25519 = \"{c}\"\norport = \"127.0.0.1:{port}\"\n");
    std::fs::write(&path, format!("authorities = [\"{a}\"]\n{}{}", fallback(5000), fallback(5001))).unwrap();
    TorTable { private_network: Some(path), ..TorTable::default() }
}

#[test]
fn nothing_of_the_public_network_is_left_in_a_private_one() {
    let folder = tempfile::tempdir().unwrap();
    let public = built(&TorTable::default()).unwrap();
    let fallbacks: &FallbackList = public.as_ref();
    assert!(fallbacks.len() > 50, "the public network's fallbacks come built in");
    let config = built(&private(folder.path())).unwrap();
    let fallbacks: &FallbackList = config.as_ref();
    assert_eq!(fallbacks.len(), 2);
    let text = format!("{config:?}");
    // Authorities of the public network, by address and identity.
    for foreign in ["128.31.0.", "$f533c81cef0bc0267857c99b2f471adf249fa232"] {
        assert!(format!("{public:?}").contains(foreign), "{foreign} is how it would show");
        assert!(!text.contains(foreign), "{foreign}");
    }
}

#[test]
fn a_bridge_elsewhere_is_refused_with_a_private_network() {
    let folder = tempfile::tempdir().unwrap();
    let mut table = TorTable { bridges: vec![BRIDGE.into()], ..TorTable::default() };
    built(&table).unwrap();
    table.private_network = private(folder.path()).private_network;
    assert!(matches!(built(&table), Err(TorError::BridgeOutsidePrivate { line: 1 })));
    table.bridges = vec![BRIDGE.replace("192.0.2.83", "127.9.0.1")];
    built(&table).unwrap();
}

#[test]
fn a_wrong_bridge_line_is_named() {
    let table = TorTable { bridges: vec![BRIDGE.into(), "nonsense".into()], ..TorTable::default() };
    assert!(matches!(built(&table), Err(TorError::Bridge { line: 2, .. })));
    let obfs4 = TorTable { bridges: vec![format!("obfs4 {BRIDGE} cert=abc iat-mode=0")], ..TorTable::default() };
    assert!(matches!(built(&obfs4), Err(TorError::Config(_))), "a bridge whose transport is missing");
}
