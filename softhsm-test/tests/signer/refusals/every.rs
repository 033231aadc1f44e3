//! No code is forgotten.

use std::path::Path;

use postern_protocol::refusal::RefusalCode;

/// The tests of this folder that ask for codes.
const HERE: [&str; 4] =
    [include_str!("intake.rs"), include_str!("../limits.rs"), include_str!("../commands.rs"), include_str!("../interruptions.rs")];

/// Codes that cannot be reached through the socket of a healthy signer by one who may ask, and where they are tested.
const ELSEWHERE: &[(RefusalCode, &str)] = &[
    (RefusalCode::NotPermitted, "signer/src/daemon/server/tests.rs"),
    (RefusalCode::Busy, "signer/src/daemon/server/tests.rs"),
    (RefusalCode::ShuttingDown, "signer/src/daemon/server/tests.rs"),
    (RefusalCode::PsbtTooLarge, "softhsm-test/hostile/shape/100_megabytes.toml"),
    (RefusalCode::KeyMismatch, "signer/tests/keystore/hsm.rs"),
    (RefusalCode::KeyMissing, "signer/tests/keystore/hsm.rs"),
    (RefusalCode::LedgerUnavailable, "signer/src/ledger/tests/charging.rs"),
    (RefusalCode::LedgerStale, "signer/src/ledger/tests/anchored.rs"),
    (RefusalCode::AttestKey, "signer/tests/tpm/attesting.rs"),
    (RefusalCode::AttestUnavailable, "signer/tests/tpm/attesting.rs"),
    (RefusalCode::CommandBase, "signer/src/ledger/tests/rebasing.rs"),
    (RefusalCode::CommandRebase, "signer/src/ledger/tests/rebasing.rs"),
];

/// The cases of the corpus that are asked over the socket.
fn corpus(folder: &Path) -> Vec<String> {
    let groups = std::fs::read_dir(folder).unwrap().map(|group| group.unwrap().path()).filter(|group| group.is_dir());
    let files =
        groups.flat_map(|group| std::fs::read_dir(group).unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()));
    files.filter(|text| text.contains("socket = true")).collect()
}

#[test]
fn every_refusal_code_is_asked_for_here_or_tested_where_it_is_said() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let corpus = corpus(&workspace.join("softhsm-test/hostile"));
    let mut forgotten = Vec::new();
    for code in RefusalCode::ALL {
        let name = format!("{code:?}");
        let mentions =
            |text: &str| text.split(|c: char| !c.is_alphanumeric()).any(|word| word == name) || text.contains(&format!("\"{code}\""));
        let elsewhere = ELSEWHERE.iter().filter(|(c, _)| c == code);
        let texts: Vec<String> = elsewhere.map(|(_, file)| std::fs::read_to_string(workspace.join(file)).unwrap()).collect();
        if !HERE.iter().any(|text| mentions(text)) && !corpus.iter().any(|text| mentions(text)) && !texts.iter().any(|text| mentions(text))
        {
            forgotten.push(name);
        }
    }
    assert!(forgotten.is_empty(), "{forgotten:?}");
}
