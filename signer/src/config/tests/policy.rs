//! The policy in words, its hash, and the warnings.

use super::*;

#[test]
fn the_policy_of_the_commented_example_reads_as_written() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/signer.toml");
    let said = Config::load(&path).unwrap().policy_text();
    assert_eq!(said, include_str!("policy.txt"), "if this is what it should say, put it into policy.txt:\n{said}");
}

#[test]
fn the_policy_hash_depends_on_the_policy_and_not_on_the_layout() {
    let hash = parse(&good()).unwrap().policy_hash();
    let mut tables: Vec<String> = good().split("\n[").map(str::to_owned).collect();
    let first = tables.remove(0);
    tables.reverse();
    let reversed = format!("# comment\n\n{first}\n[{}", tables.join("\n["));
    assert_eq!(parse(&reversed).unwrap().policy_hash(), hash);
    // Where things are on this machine is no policy.
    assert_eq!(parse(&good().replace("/var/lib/postern", "/srv/postern")).unwrap().policy_hash(), hash);
}

/// A TPM's table.
const TPM: &str = "[keystore.tpm]\nkind = \"tpm\"\ntcti = \"device:/dev/tpmrm0\"\npcrs = [7, 11]\nauth = { credential = \"tpm-auth\" }\n";

#[test]
fn a_tpms_table_reads_in_words() {
    let text = good().replace("[limits]", &format!("[anchor]\nkind = \"tpm\"\nkeystore = \"tpm\"\n{TPM}[limits]"));
    let said = parse(&text).unwrap().policy_text();
    for wanted in [
        "Keystore `tpm`: the TPM at device:/dev/tpmrm0; seeds are sealed to its PCRs 7, 11.",
        "The ledger is anchored in the memory of the TPM of keystore `tpm`, NV index 0x01807057.",
    ] {
        assert!(said.contains(wanted), "{said}");
    }
    // What is left out has this meaning and no other.
    assert_eq!(parse(&text.replace("pcrs = [7, 11]\n", "")).unwrap().policy_hash(), parse(&text).unwrap().policy_hash());
}

#[test]
fn whatever_may_change_what_is_signed_changes_the_policy_hash() {
    let changes: [(&str, &str); 34] = [
        ("vault-1", "vault-2"),
        ("regtest", "signet"),
        ("\"0.04 BTC\"", "\"0.05 BTC\""),
        ("1 min", "2 min"),
        ("0.4 BTC", "0.5 BTC"),
        ("100 BTC", "101 BTC"),
        ("[limits]", "[limits]\nraise = \"config\""),
        ("[limits]", "[socket]\ngates = [\"postern-link\"]\n[limits]"),
        ("[limits]", "[socket]\noperators = [\"postern-link\"]\n[limits]"),
        ("[limits]", "[anchor]\nkind = \"pkcs11\"\nkeystore = \"hsm\"\n[limits]"),
        ("[limits]", &format!("[anchor]\nkind = \"tpm\"\nkeystore = \"tpm\"\n{TPM}[limits]")),
        ("[limits]", &format!("[anchor]\nkind = \"tpm\"\nkeystore = \"tpm\"\nindex = 0x01800001\n{TPM}[limits]")),
        ("[limits]", &format!("{TPM}[limits]")),
        ("[limits]", &format!("{}[limits]", TPM.replace("tpmrm0", "tpmrm1"))),
        ("[limits]", &format!("{}[limits]", TPM.replace("7, 11", "7, 12"))),
        ("[limits]", "[anchor]\nkind = \"none\"\nlease = \"1 BTC\"\n[limits]"),
        ("libsofthsm2.so", "libother.so"),
        ("label = \"postern\"", "label = \"other\""),
        ("0123", "0124"),
        ("wpkh(pool)", "pkh(pool)"),
        ("[wallet.hot]", "[wallet.cold]"),
        ("kind = \"pool\"", "kind = \"pool\"\ngap = 20"),
        ("kind = \"pool\"", "kind = \"pool\"\npool_max = 20"),
        ("kind = \"pool\"", "kind = \"pool\"\nallow_op_return = true"),
        ("kind = \"pool\"", "kind = \"pool\"\nallow_foreign_inputs = true"),
        ("kind = \"pool\"", "kind = \"pool\"\nmax_locktime_height = 1"),
        ("kind = \"pool\"", "kind = \"pool\"\nlimits = { total = \"1 BTC\" }"),
        ("0.001 BTC", "0.002 BTC"),
        ("200 sat/vB", "201 sat/vB"),
        ("5 %", "6 %"),
        ("\"any\"", "[]"),
        ("quorum = 1", "quorum = 2"),
        ("quorum = 1", "quorum = 1\non_forgery = \"refuse\""),
        ("cfo", "ceo"),
    ];
    let mut hashes = vec![parse(&good()).unwrap().policy_hash()];
    for (from, to) in changes {
        let text = good();
        assert!(text.contains(from), "{from}");
        let hash = parse(&text.replacen(from, to, 1)).unwrap_or_else(|e| panic!("{to}: {e}")).policy_hash();
        assert!(!hashes.contains(&hash), "{to} changes nothing");
        hashes.push(hash);
    }
}

#[test]
fn what_weakens_is_warned_of() {
    let warned = |from: &str, to: &str| parse(&good().replacen(from, to, 1)).unwrap().warnings().join("\n");
    let first = warned("", "");
    assert!(first.contains("no [anchor]") && first.contains("quorum = 1"), "{first}");
    let weak = [
        ("total = \"100 BTC\"", "", "no [limits] total"),
        ("rate = [", "#", "no [limits] rate"),
        ("[limits]", "[limits]\nraise = \"config\"", "raise = \"config\""),
        ("[signer]", "[signer]\ndisclose = \"full\"", "disclose = \"full\""),
        ("fee = {", "#", "no fee cap"),
        ("\"any\"", "[]", "destinations is empty"),
        ("kind = \"pool\"", "kind = \"pool\"\nallow_foreign_inputs = true", "allow_foreign_inputs"),
    ];
    for (from, to, wanted) in weak {
        let warnings = warned(from, to);
        assert!(warnings.contains(wanted) && !first.contains(wanted), "{wanted}: {warnings}");
    }
    let text = good();
    let unled = text.split("[commands]").next().unwrap();
    assert!(parse(unled).unwrap().warnings().join("\n").contains("no [commands]"));
    let safe = good().replace("quorum = 1", "quorum = 2").replace("[limits]", "[anchor]\nkind = \"pkcs11\"\nkeystore = \"hsm\"\n[limits]");
    assert_eq!(parse(&safe).unwrap().warnings(), Vec::<String>::new());
}
