#![allow(clippy::unwrap_used)]

use super::*;

fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/coordinator.toml");
    std::fs::read_to_string(path).unwrap()
}

fn problem(text: &str) -> String {
    Config::parse(Path::new("coordinator.toml"), text).unwrap_err().to_string()
}

/// The line, from 1, on which a text stands.
fn line(text: &str, what: &str) -> usize {
    text.lines().position(|l| l.contains(what)).unwrap() + 1
}

#[test]
fn the_commented_example_loads() {
    let config = Config::parse(Path::new("coordinator.toml"), &example()).unwrap();
    assert_eq!(config.coordinator.network, Network::Regtest);
    let hot = &config.wallet["hot"];
    assert_eq!(hot.approval.automatic_up_to, Amount(1_000_000));
    assert_eq!(hot.batch.wait.ms(), 2_000);
    assert_eq!(hot.fee.max_rate.sat_per_kvb(), 100_000);
}

#[test]
fn an_unknown_key_is_an_error_with_line_and_nearest_match() {
    let text = example().replace("needs_retry =", "need_retry =");
    let said = problem(&text);
    assert!(said.starts_with(&format!("coordinator.toml:{}:", line(&text, "need_retry"))), "{said}");
    assert!(said.contains("unknown key `need_retry`; did you mean `needs_retry`?"), "{said}");
}

#[test]
fn a_wrong_unit_is_an_error_with_its_line() {
    let text = example().replace("\"1 min\"", "\"1 fortnight\"");
    let said = problem(&text);
    assert!(said.starts_with(&format!("coordinator.toml:{}:", line(&text, "fortnight"))), "{said}");
    assert!(said.contains("`1 fortnight` is not a time such as"), "{said}");
}

#[test]
fn a_wrong_network_for_the_keys_is_an_error_at_the_wallet() {
    let text = example().replace("network = \"regtest\"", "network = \"bitcoin\"");
    let said = problem(&text);
    assert!(said.contains("test networks (tpub)"), "{said}");
    assert!(said.starts_with(&format!("coordinator.toml:{}:", line(&text, "[wallet.hot]"))), "{said}");
}

#[test]
fn a_value_out_of_range_is_an_error_at_its_line() {
    let text = example().replace("gap = 100", "gap = 0");
    let said = problem(&text);
    assert!(said.starts_with(&format!("coordinator.toml:{}:", line(&text, "gap = 0"))), "{said}");
    assert!(said.contains("[wallet.hot] gap is a number from"), "{said}");
}

#[test]
fn the_api_listens_beyond_this_machine_only_when_it_is_said() {
    let outside = example().replace("127.0.0.1:8331", "0.0.0.0:8331");
    assert!(problem(&outside).contains("clear text"), "{}", problem(&outside));
    let said = outside.replace("# listen_in_clear_text_beyond", "listen_in_clear_text_beyond");
    Config::parse(Path::new("coordinator.toml"), &said).unwrap();
}

#[test]
fn a_node_needs_one_kind_of_credentials() {
    let none = example().replace("cookie =", "# cookie =");
    assert!(problem(&none).contains("[bitcoind] needs either `cookie`"), "{}", problem(&none));
}

#[test]
fn a_password_is_never_shown_with_an_error() {
    let text = example().replace("cookie =", "password = \"hunter2\"\n# cookie =");
    let said = problem(&text);
    assert!(!said.contains("hunter2"), "{said}");
}
