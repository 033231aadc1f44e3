#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const KEY_A: &str = "ed25519:8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
const KEY_B: &str = "ed25519:8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";

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

/// The error after one change of a good file.
fn problem(from: &str, to: &str) -> String {
    let text = good();
    assert!(text.contains(from), "{from}");
    parse(&text.replacen(from, to, 1)).unwrap_err().to_string()
}

#[test]
fn a_good_file_is_read_with_its_units() {
    let config = parse(&good()).unwrap();
    assert_eq!(config.limits.rates[0], postern_protocol::command::Rate { amount_sat: 4_000_000, per_ms: 60_000, burst_sat: 40_000_000 });
    assert_eq!(config.limits.total_sat, Some(10_000_000_000));
    assert_eq!(config.raise, Raise::Command);
    let wallet = &config.wallets["hot"];
    assert_eq!(wallet.rules.fee.max_share_ppm, Some(50_000));
    assert_eq!(config.pkcs11("hsm").unwrap().token_serial, "0123");
}

#[test]
fn each_mistake_is_an_error_with_line_and_what_to_write() {
    let cases = [
        ("total = \"100 BTC\"", "totall = \"100 BTC\"", "signer.toml:9: unknown key `totall`; did you mean `total`?"),
        ("\"100 BTC\"", "\"100\"", "signer.toml:9: `100` is not an amount such as \"0.04 BTC\""),
        ("\"1 min\"", "\"1 minuet\"", "signer.toml:8: `1 minuet` is not a time such as"),
        ("\"200 sat/vB\"", "\"200\"", "signer.toml:21: `200` is not a fee rate such as \"12 sat/vB\""),
        ("\"5 %\"", "\"500 %\"", "signer.toml:21: `500 %` is not a share"),
        ("\"regtest\"", "\"regtset\"", "signer.toml:3: unknown value `regtset`; did you mean `regtest`?"),
        ("burst = \"0.4 BTC\"", "burst = \"0.01 BTC\"", "signer.toml:8: `burst` is smaller than `amount`"),
        ("keystore = \"hsm\"", "keystore = \"hms\"", "signer.toml:18: no [keystore.hms] is configured; there is hsm"),
        ("{ credential = \"hsm-pin\" }", "\"1234\"", "signer.toml:15: a secret must not stand in the configuration"),
        ("quorum = 1", "quorum = 3", "signer.toml:25: a quorum of 3 of 2 managers; write a number from 1 to 2"),
        (KEY_B, KEY_A, "signer.toml:26: the same name or key as manager `cfo`"),
        ("name = \"vault-1\"", "name = \"vault 1\"", "signer.toml:2: `vault 1` is no name"),
        ("\"any\"", "\"some\"", "signer.toml:22: `some` is not \"any\""),
        (
            "\"any\"",
            "[\"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4\"]",
            "signer.toml:22: `bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4` is an address of another network than regtest",
        ),
        ("\"any\"", "[\"rubbish\"]", "signer.toml:22: `rubbish` is no address"),
        ("kind = \"pool\"", "kind = \"hsm\"", "signer.toml:17: a wallet of kind \"hsm\" needs `public_key`"),
        ("\"wpkh(pool)\"", "\"wpkh(pool\"", "signer.toml:20: not a descriptor"),
        (
            "kind = \"pool\"\ndescriptor = \"wpkh(pool)\"",
            "kind = \"seed\"\ndescriptor = \"wpkh([d34db33f/84h/0h/0h]xpub6ERApfZwUNrhLCkDtcHTcxd75RbzS1ed54G1LkBUHQVHQKqhMkhgbmJbZRkrgZw4koxb5JaHWkY4ALHY2grBGRjaDMzQLcgJvLJuZZvRcEL/<0;1>/*)\"",
            "signer.toml:20: ",
        ),
        ("[limits]", "[limits]\nraise = \"comand\"", "signer.toml:8: unknown value `comand`; did you mean `command`?"),
        ("[limits]", "[limits]\ntotal = \"1 BTC\"", "signer.toml:10: duplicate key"),
        ("[limits]", "[anchor]\nkind = \"pkcs11\"\n[limits]", "signer.toml: [anchor] of kind \"pkcs11\" needs `keystore"),
        ("socket = \"/run/postern/signer.sock\"\n", "", "missing field `socket`"),
    ];
    for (from, to, wanted) in cases {
        let said = problem(from, to);
        assert!(said.contains(wanted), "{to}: wanted {wanted:?}, got {said:?}");
    }
}

#[test]
fn an_inline_secret_is_not_repeated_in_the_error_message() {
    let text = good().replace("pin = { credential = \"hsm-pin\" }", "pin = \"hunter22\"");
    let message = parse(&text).unwrap_err().to_string();
    assert!(!message.contains("hunter22"), "{message}");
}

#[test]
fn a_file_of_destinations_is_read_and_its_errors_have_lines() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("payees.txt");
    let text = good().replace("destinations = \"any\"", "destinations = { file = \"payees.txt\" }");
    let path = folder.path().join("signer.toml");
    std::fs::write(&list, "# cold storage\nbcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080 # vault\n\n").unwrap();
    let config = Config::parse(&path, &text).unwrap();
    assert!(matches!(&config.wallets["hot"].policy.destinations, crate::policy::rules::Destinations::Scripts(s) if s.len() == 1));
    std::fs::write(&list, "# cold storage\nnonsense\n").unwrap();
    let said = Config::parse(&path, &text).unwrap_err().to_string();
    assert!(said.contains("payees.txt:2: `nonsense` is no address"), "{said}");
    std::fs::remove_file(&list).unwrap();
    let said = Config::parse(&path, &text).unwrap_err().to_string();
    assert!(said.contains("payees.txt: cannot be read"), "{said}");
}

#[test]
fn the_policy_hash_depends_on_the_policy_and_not_on_the_layout() {
    let hash = parse(&good()).unwrap().policy_hash();
    assert_eq!(parse(&format!("# comment\n\n{}", good())).unwrap().policy_hash(), hash);
    assert_ne!(parse(&good().replace("100 BTC", "101 BTC")).unwrap().policy_hash(), hash);
}

#[test]
fn what_weakens_is_warned_of() {
    let warnings = parse(&good()).unwrap().warnings().join("\n");
    assert!(warnings.contains("no [anchor]"), "{warnings}");
    assert!(warnings.contains("quorum = 1"), "{warnings}");
    let open = good().replace("total = \"100 BTC\"", "raise = \"config\"");
    let warnings = parse(&open).unwrap().warnings().join("\n");
    assert!(warnings.contains("no [limits] total") && warnings.contains("raise = \"config\""), "{warnings}");
}

#[test]
fn a_file_too_large_to_be_a_configuration_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signer.toml");
    std::fs::File::create(&path).unwrap().set_len(2 * 1024 * 1024).unwrap();
    assert!(matches!(Config::load(&path), Err(ConfigError::TooLarge { .. })));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(matches!(Config::load(&path), Err(ConfigError::Unreadable { .. })));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}", cut in 0_usize..900) {
        let _ = parse(&text);
        let good = good();
        let cut = cut.min(good.len());
        let _ = parse(&format!("{}{text}{}", &good[..cut], &good[cut..]));
    }
}
