#![allow(clippy::unwrap_used)]

use postern_protocol::config_file::parse;

use super::*;

const GOOD: &str = "[link]\nstate = \"/s\"\nsigner = \"/r/signer.sock\"\ncoordinator = \"/c.toml\"\nmode = \"tor\"\n";

fn problem(text: &str) -> String {
    parse::<LinkConfig>(Path::new("link.toml"), text).unwrap_err().to_string()
}

#[test]
fn an_unknown_key_is_an_error_with_line_and_nearest_match() {
    let said = problem(&format!("{GOOD}\n[tor]\nbridge = []\n"));
    assert!(said.starts_with("link.toml:8:1: unknown key `bridge`; did you mean `bridges`?"), "{said}");
    assert!(said.contains("bridge = []"), "{said}");
}

#[test]
fn a_wrong_unit_is_an_error_with_its_line() {
    let said = problem(&format!("{GOOD}heartbeat = \"30\"\n"));
    assert!(said.starts_with("link.toml:6:13: `30` is not a time such as"), "{said}");
}

#[test]
fn a_wrong_word_is_an_error_with_the_right_ones() {
    let said = problem(&GOOD.replace("\"tor\"", "\"tro\""));
    assert!(said.starts_with("link.toml:5:8: unknown value `tro`; did you mean `tor`?"), "{said}");
}

#[test]
fn a_missing_key_is_named() {
    let said = problem(&GOOD.replace("signer = \"/r/signer.sock\"\n", ""));
    assert!(said.contains("the key `signer` is missing here"), "{said}");
}

#[test]
fn a_number_out_of_range_is_an_error_with_its_line() {
    let said = problem(&format!("{GOOD}max_in_flight = 0\n"));
    assert!(said.starts_with("link.toml:6:17: 0 is not a number from 1 to 1000"), "{said}");
}

#[test]
fn the_commented_example_loads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/link.toml");
    let config = LinkConfig::load(&path).unwrap();
    assert_eq!(config.link.mode, Mode::Tor);
    assert_eq!(config.link.max_in_flight, default_in_flight());
    assert_eq!(config.link.heartbeat, default_heartbeat());
}
