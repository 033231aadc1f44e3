#![allow(clippy::unwrap_used)]

mod files;
mod mistakes;
mod policy;

use proptest::prelude::*;

use super::*;

const KEY_A: &str = "ed25519:8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
const KEY_B: &str = "ed25519:8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";
const TPUB: &str =
    "[73c5da0a/84h/1h/0h]tpubDC8msFGeGuwnKG9Upg7DM2b4DaRqg3CUZa5g8v2SRQ6K4NSkxUgd7HsL2XVWbVm39yBA4LAxysQAm397zwQSQoQgewGiYZqrA9DsP4zbQ1M";
const XPUB: &str =
    "[d34db33f/84h/0h/0h]xpub6ERApfZwUNrhLCkDtcHTcxd75RbzS1ed54G1LkBUHQVHQKqhMkhgbmJbZRkrgZw4koxb5JaHWkY4ALHY2grBGRjaDMzQLcgJvLJuZZvRcEL";
const POINT: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

const OTHER_POINT: &str = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";

/// A file in which everything is right.
fn good() -> String {
    format!(
        r#"[signer]
name = "vault-1"
network = "regtest"
state = "/var/lib/postern"
socket = "/run/postern/signer.sock"

[limits]
rate = [{{ amount = "0.04 BTC", per = "1 min", burst = "0.4 BTC" }}]
total = "100 BTC"

[keystore.hsm]
kind = "pkcs11"
module = "/usr/lib/softhsm/libsofthsm2.so"
token = {{ label = "postern", serial = "0123" }}
pin = {{ credential = "hsm-pin" }}

[wallet.hot]
keystore = "hsm"
kind = "pool"
descriptor = "wpkh(pool)"
fee = {{ max = "0.001 BTC", max_rate = "200 sat/vB", max_share = "5 %" }}
destinations = "any"

[commands]
quorum = 1
managers = [{{ name = "cfo", key = "{KEY_A}" }}, {{ name = "cto", key = "{KEY_B}" }}]
"#
    )
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("signer.toml"), text)
}

#[test]
fn a_good_file_is_read_with_its_units() {
    let config = parse(&good()).unwrap();
    assert_eq!(config.limits.rates[0], postern_protocol::command::Rate { amount_sat: 4_000_000, per_ms: 60_000, burst_sat: 40_000_000 });
    assert_eq!(config.limits.total_sat, Some(10_000_000_000));
    assert_eq!(config.raise, Raise::Command);
    let wallet = &config.wallets["hot"];
    assert_eq!(wallet.rules.fee.max_share_ppm, Some(50_000));
    assert!(matches!(config.keystore("hsm"), Some(KeystoreConfig::Pkcs11(hsm)) if hsm.token_serial == "0123"));
    let text = good().replace("[limits]", "[socket]\nframe_max = \"1 MiB\"\n[limits]");
    assert_eq!(parse(&text).unwrap().socket_terms.frame_max.0, 1_048_576);
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}", cut in 0_usize..900) {
        let _ = parse(&text);
        let good = good();
        let cut = cut.min(good.len());
        let _ = parse(&format!("{}{text}{}", &good[..cut], &good[cut..]));
    }

    /// Well-formed TOML with values of the wrong type in the right places.
    #[test]
    fn no_value_makes_the_reader_panic(
        at in 0_usize..25,
        value in prop_oneof![
            Just("0".to_owned()), Just("-1".into()), Just("1.5".into()), Just("true".into()), Just("[]".into()), Just("{}".into()),
            Just("[[]]".into()), Just("{ file = 1 }".into()), Just("1979-05-27".into()), Just("99999999999999999999".into()),
            "\"[a-z()<>;/*@0-9 ]{0,30}\"",
        ],
    ) {
        let mut lines: Vec<String> = good().lines().map(str::to_owned).collect();
        let at = at.min(lines.len() - 1);
        if let Some((key, _)) = lines[at].split_once('=') {
            lines[at] = format!("{key}= {value}");
            let _ = parse(&lines.join("\n")).map(|config| (config.policy_text(), config.policy_hash(), config.warnings()));
        }
    }
}
