//! Each mistake is an error with file, line, column, and what to write instead.

use super::*;

/// The error after one change of a good file, without the quoted line.
fn said(from: &str, to: &str) -> String {
    let text = good();
    assert!(text.contains(from), "{from}");
    let error = parse(&text.replacen(from, to, 1)).expect_err(to).to_string();
    error.lines().next().unwrap().to_owned()
}

macro_rules! mistakes {
    ($($promise:ident: $from:expr => $to:expr, $said:expr;)+) => {
        $(#[test] fn $promise() { assert_eq!(said($from.as_ref(), $to.as_ref()), format!("signer.toml:{}", $said)); })+
    };
}

mistakes! {
    an_unknown_key_is_named_with_the_one_that_was_meant: "total = \"100 BTC\"" => "totall = \"100 BTC\"", "9:1: unknown key `totall`; did you mean `total`?";
    an_unknown_key_that_resembles_none_is_named_with_those_that_exist: "total = \"100 BTC\"" => "xyzzy = 1", "9:1: unknown key `xyzzy`; expected one of `rate`, `total`, `raise`";
    an_unknown_table_is_named: "[limits]" => "[limts]", "7:2: unknown key `limts`; did you mean `limits`?";
    an_amount_needs_its_unit: "\"100 BTC\"" => "\"100\"", "9:9: `100` is not an amount such as \"0.04 BTC\" or \"4000000 sat\", at most 21,000,000 BTC";
    an_amount_is_a_text: "\"100 BTC\"" => "100", "9:9: invalid type: integer `100`, expected a string; put it in quotes";
    an_amount_over_all_money_is_none: "\"100 BTC\"" => "\"21000001 BTC\"", "9:9: `21000001 BTC` is not an amount such as \"0.04 BTC\" or \"4000000 sat\", at most 21,000,000 BTC";
    a_time_needs_a_unit_that_exists: "\"1 min\"" => "\"1 minuet\"", "8:38: `1 minuet` is not a time such as \"30 s\", \"1 min\", \"2 h\", \"1 day\" or \"1 week\"";
    a_fee_rate_needs_its_unit: "\"200 sat/vB\"" => "\"200\"", "21:39: `200` is not a fee rate such as \"12 sat/vB\"";
    a_share_is_at_most_all: "\"5 %\"" => "\"500 %\"", "21:65: `500 %` is not a share such as \"5 %\", at most 100 %";
    a_frame_size_needs_its_unit: "[limits]" => "[socket]\nframe_max = \"65536\"\n[limits]", "8:13: `65536` is not a size such as \"65536 B\", \"64 KiB\" or \"16 MiB\"";
    a_frame_size_has_a_range: "[limits]" => "[socket]\nframe_max = \"1 KiB\"\n[limits]", "8:13: `1 KiB` is not a size from \"4 KiB\" to \"16 MiB\"";
    a_network_is_one_of_four: "\"regtest\"" => "\"regtset\"", "3:11: unknown value `regtset`; did you mean `regtest`?";
    a_burst_below_its_amount_is_refused: "burst = \"0.4 BTC\"" => "burst = \"0.01 BTC\"", "8:9: `burst` is smaller than `amount`; it is the most that may leave at once, so make it at least as large";
    a_rate_of_nothing_is_refused: "amount = \"0.04 BTC\"" => "amount = \"0 sat\"", "8:9: a rate of nothing lets nothing out for ever; to stop all payments write total = \"0 BTC\" instead";
    a_keystore_must_be_configured: "keystore = \"hsm\"" => "keystore = \"hms\"", "18:12: there is no [keystore.hms]; did you mean `hsm`?";
    a_keystore_is_of_a_kind_that_exists: "kind = \"pkcs11\"" => "kind = \"pkcs12\"", "12:8: unknown value `pkcs12`; did you mean `pkcs11`?";
    a_token_needs_its_module: "module = \"/usr/lib/softhsm/libsofthsm2.so\"\n" => "", "12:8: a keystore of kind \"pkcs11\" needs module = \"…\": the token vendor's PKCS#11 library";
    a_token_needs_its_name: "token = { label = \"postern\", serial = \"0123\" }\n" => "", "12:8: a keystore of kind \"pkcs11\" needs token = { label = \"…\", serial = \"…\" }";
    a_token_needs_its_pin: "pin = { credential = \"hsm-pin\" }\n" => "", "12:8: a keystore of kind \"pkcs11\" needs pin = { file = \"…\" } or { credential = \"…\" }";
    a_token_has_no_keys_of_a_tpm: "[wallet.hot]" => "pcrs = [7]\n[wallet.hot]", "17:8: a keystore of kind \"pkcs11\" has no `pcrs`; remove this key";
    a_tpm_has_no_keys_of_a_token: "\"pkcs11\"" => "\"tpm\"", "13:10: a keystore of kind \"tpm\" has no `module`; remove this key";
    a_tpm_needs_its_place: "[keystore.hsm]" => "[keystore.tpm]\nkind = \"tpm\"\n[keystore.hsm]", "12:8: a keystore of kind \"tpm\" needs tcti = \"device:/dev/tpmrm0\": where the TPM is";
    a_tpm_needs_its_secret: "[keystore.hsm]" => "[keystore.tpm]\nkind = \"tpm\"\ntcti = \"device:/dev/tpm0\"\n[keystore.hsm]", "12:8: a keystore of kind \"tpm\" needs auth = { file = \"…\" } or { credential = \"…\" }";
    a_tpms_place_has_a_form: "[keystore.hsm]" => "[keystore.tpm]\nkind = \"tpm\"\ntcti = \"/dev/tpm0\"\n[keystore.hsm]", "13:8: `/dev/tpm0` is not a TPM's place: write \"device:/dev/tpmrm0\"; for a software TPM \"swtpm:host=127.0.0.1,port=2321\"";
    a_tpm_is_on_this_machine: "[keystore.hsm]" => "[keystore.tpm]\nkind = \"tpm\"\ntcti = \"swtpm:host=10.0.0.1,port=2321\"\n[keystore.hsm]", "13:8: the software TPM at 10.0.0.1 is on another machine; the signer has no network: write host=127.0.0.1";
    a_pcr_is_one_of_24: "[keystore.hsm]" => "[keystore.tpm]\nkind = \"tpm\"\ntcti = \"device:/dev/tpm0\"\npcrs = [24]\n[keystore.hsm]", "14:8: PCRs are numbers from 0 to 23, such as [7, 11]";
    a_tpm_keeps_seeds_only: "[wallet.hot]\nkeystore = \"hsm\"" => "[keystore.tpm]\nkind = \"tpm\"\ntcti = \"device:/dev/tpm0\"\nauth = { credential = \"a\" }\n[wallet.hot]\nkeystore = \"tpm\"", "22:12: a TPM has no secp256k1 and keeps seeds only; write kind = \"seed\", or name a keystore of kind \"pkcs11\"";
    an_anchors_keystore_is_of_its_kind: "[limits]" => "[anchor]\nkind = \"tpm\"\nkeystore = \"hsm\"\n[limits]", "9:12: [keystore.hsm] is of another kind; an anchor of kind \"tpm\" needs one of that kind";
    an_index_is_a_tpms: "[limits]" => "[anchor]\nkind = \"pkcs11\"\nkeystore = \"hsm\"\nindex = 0x01807057\n[limits]", "10:9: only an anchor of kind \"tpm\" has an `index`; remove this key";
    an_index_is_the_owners: "[limits]" => "[anchor]\nkind = \"pkcs11\"\nkeystore = \"hsm\"\nindex = 5\n[limits]", "10:9: 5 is not one of the owner's NV indices, 0x01800000 to 0x01bfffff";
    a_secret_is_never_inline: "{ credential = \"hsm-pin\" }" => "\"1234\"", "15:7: a secret must not stand in the configuration; write { file = \"…\" } or { credential = \"…\" }";
    a_secret_is_never_inline_as_a_number: "{ credential = \"hsm-pin\" }" => "1234", "15:7: a secret must not stand in the configuration; write { file = \"…\" } or { credential = \"…\" }";
    a_secret_is_in_a_file_or_a_credential: "{ credential = \"hsm-pin\" }" => "{ value = \"1234\" }", "15:9: unknown value `value`; expected `file` or `credential`";
    a_quorum_is_at_most_all_managers: "quorum = 1" => "quorum = 3", "25:10: a quorum of 3 of 2 managers; write a number from 1 to 2";
    a_quorum_of_nobody_is_refused: "quorum = 1" => "quorum = 0", "25:10: a quorum of 0 of 2 managers; write a number from 1 to 2";
    a_manager_counts_once: KEY_B => KEY_A, "26:113: the same name or key as manager `cfo`; each counts once";
    a_managers_name_counts_once: "\"cto\"" => "\"cfo\"", "26:113: the same name or key as manager `cfo`; each counts once";
    a_managers_key_has_a_form: KEY_B => "ed25519:00", "26:135: a public key is written `ed25519:` and 64 hex digits";
    a_managers_key_is_a_point: KEY_B => format!("ed25519:{}", "00".repeat(32)), "26:135: this is not a usable Ed25519 point";
    a_name_has_a_form: "name = \"vault-1\"" => "name = \"vault 1\"", "2:8: `vault 1` is no name: use 1 to 32 letters, digits, `-` and `_`";
    a_wallet_is_not_called_signer: "[wallet.hot]" => "[wallet.signer]", "17:9: `signer` is a reserved name: it means the whole signer; choose another";
    a_kind_is_one_of_three: "kind = \"pool\"" => "kind = \"pol\"", "19:8: unknown value `pol`; did you mean `pool`?";
    destinations_are_any_or_a_list: "\"any\"" => "\"some\"", "22:16: `some` is not \"any\"; for one address write a list: [\"some\"]";
    a_destination_is_an_address: "\"any\"" => "[\n  \"bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080\",\n  \"rubbish\",\n]", "24:3: `rubbish` is no address: base58 error";
    a_destination_is_on_the_signers_network: "\"any\"" => "[\"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4\"]", "22:17: `bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4` is an address of another network; [signer] network is regtest";
    destinations_are_no_number: "\"any\"" => "5", "22:16: invalid type: integer `5`, expected \"any\", a list of addresses, or { file = \"…\" } with an address a line";
    a_descriptor_is_one: "\"wpkh(pool)\"" => "\"wpkh(pool\"", "20:14: not a descriptor: expected )";
    a_checksum_is_checked: "\"wpkh(pool)\"" => "\"wpkh(pool)#qqqqqqqq\"", "20:14: not a descriptor: Invalid descriptor: Invalid checksum 'qqqqqqqq', expected '5e9qftym'";
    a_pool_has_the_word_pool: "wpkh(pool)" => format!("wpkh({TPUB}/<0;1>/*)"), "20:14: the descriptor of a pool wallet holds the word `pool` where its key goes: wpkh(pool)";
    an_xpub_is_of_the_signers_network: "kind = \"pool\"\ndescriptor = \"wpkh(pool)\"" => format!("kind = \"seed\"\ndescriptor = \"wpkh({XPUB}/<0;1>/*)\""), "20:14: [d34db33f/84'/0'/0']xpub6ERApfZwUNrhLCkDtcHTcxd75RbzS1ed54G1LkBUHQVHQKqhMkhgbmJbZRkrgZw4koxb5JaHWkY4ALHY2grBGRjaDMzQLcgJvLJuZZvRcEL/<0;1>/* is not a key for regtest: mainnet keys begin with xpub, those of test networks with tpub";
    a_seed_needs_an_origin: "kind = \"pool\"\ndescriptor = \"wpkh(pool)\"" => format!("kind = \"seed\"\ndescriptor = \"wpkh({POINT})\""), "20:14: no [fingerprint/path]xpub in it; a wallet of kind \"seed\" on regtest needs one, as `postern wallet new` prints it";
    several_signers_keys_need_a_fingerprint: "kind = \"pool\"\ndescriptor = \"wpkh(pool)\"" => format!("kind = \"seed\"\ndescriptor = \"wsh(multi(2,{TPUB}/<0;1>/*,{}/<0;1>/*))\"", TPUB.replace("73c5da0a", "11111111").replace("84h", "85h")), "20:14: it names the keys of several signers; say with fingerprint = \"…\" which are ours";
    taproot_is_for_seeds: "wpkh(pool)" => "tr(pool)", "20:14: tr(…) needs BIP-340 signatures, which no PKCS#11 token makes: use kind = \"seed\", or wpkh(…)";
    an_hsm_wallet_pins_its_key: "kind = \"pool\"" => "kind = \"hsm\"", "17:9: a wallet of kind \"hsm\" needs public_key = \"02…\", our key in the descriptor, as `postern wallet new` prints it";
    a_public_key_has_a_form: "kind = \"pool\"" => "kind = \"hsm\"\npublic_key = \"02ff\"", "20:14: `02ff` is not a public key: 66 hex digits that begin with 02 or 03, as `postern wallet new` prints it";
    a_fingerprint_has_a_form: "kind = \"pool\"" => "kind = \"seed\"\nfingerprint = \"d34d\"", "20:15: `d34d` is not a fingerprint: 8 hex digits, as in the descriptor";
    a_pinned_key_is_in_the_descriptor: "kind = \"pool\"\ndescriptor = \"wpkh(pool)\"" => format!("kind = \"hsm\"\npublic_key = \"{OTHER_POINT}\"\ndescriptor = \"wpkh({POINT})\""), "21:14: our key 02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5 does not stand in the descriptor";
    a_public_key_is_for_hsm_wallets: "kind = \"pool\"" => format!("kind = \"pool\"\npublic_key = \"{POINT}\""), "20:14: `public_key` is for wallets of kind \"hsm\"; remove it";
    a_pool_size_is_for_pools: "kind = \"pool\"\ndescriptor = \"wpkh(pool)\"" => format!("kind = \"seed\"\npool_max = 5\ndescriptor = \"wpkh({TPUB}/<0;1>/*)\""), "20:12: `pool_max` is for wallets of kind \"pool\"; remove it";
    a_gap_has_a_range: "kind = \"pool\"" => "kind = \"pool\"\ngap = 0", "20:7: 0 is not a number from 1 to 100000";
    raise_is_for_all_wallets: "[commands]" => "[wallet.hot.limits]\nraise = \"config\"\n[commands]", "25:9: `raise` belongs in [limits]: it holds for all wallets";
    an_unknown_fee_cap_is_named: "max_share" => "max_shares", "21:53: unknown key `max_shares`; did you mean `max_share`?";
    a_switch_is_true_or_false: "kind = \"pool\"" => "kind = \"pool\"\nallow_op_return = \"yes\"", "20:19: invalid type: string \"yes\", expected a boolean";
    raise_is_one_of_two_words: "[limits]" => "[limits]\nraise = \"comand\"", "8:9: unknown value `comand`; did you mean `command`?";
    a_key_stands_once: "[limits]" => "[limits]\ntotal = \"1 BTC\"", "10:1: duplicate key: each key and each table stands once";
    a_table_stands_once: "[commands]" => "[limits]\n[commands]", "24:2: duplicate key: each key and each table stands once";
    an_anchor_on_a_token_names_its_keystore: "[limits]" => "[anchor]\nkind = \"pkcs11\"\n[limits]", "8:8: an anchor of kind \"pkcs11\" needs keystore = \"NAME\": the token that holds it";
    an_anchors_keystore_must_be_configured: "[limits]" => "[anchor]\nkind = \"pkcs11\"\nkeystore = \"tpm\"\n[limits]", "9:12: there is no [keystore.tpm]; there is hsm";
    no_anchor_is_in_no_keystore: "[limits]" => "[anchor]\nkind = \"none\"\nkeystore = \"hsm\"\n[limits]", "9:12: an anchor of kind \"none\" is in no keystore; remove this key, or write kind = \"pkcs11\"";
    what_is_missing_is_named: "socket = \"/run/postern/signer.sock\"\n" => "", "1:1: the key `socket` is missing here";
    commands_need_managers: "quorum = 1\n" => "quorum = 1\nmanagers = []\n#", "25:10: [commands] without managers; name some, or remove the table";
    what_is_no_toml_is_said_where: "[limits]" => "[limits", "7:8: unclosed table, expected `]`";
}

#[test]
fn the_same_coins_in_two_wallets_are_refused() {
    let wallet = |name: &str| format!("\n[wallet.{name}]\nkeystore = \"hsm\"\nkind = \"seed\"\ndescriptor = \"wpkh({TPUB}/<0;1>/*)\"\n");
    let error = parse(&format!("{}{}{}", good(), wallet("one"), wallet("two"))).unwrap_err().to_string();
    assert!(error.contains(":36:14: [wallet.one] has the same addresses; a coin must be under one policy"), "{error}");
}

#[test]
fn too_many_managers_or_rates_are_refused() {
    let managers = (0..8).map(|n| {
        let key = postern_protocol::key::PublicKey::from(ed25519_dalek::SigningKey::from_bytes(&[n + 1; 32]).verifying_key());
        format!("{{ name = \"m{n}\", key = \"{key}\" }}")
    });
    let managers = managers.collect::<Vec<_>>().join(", ");
    let text = good().lines().filter(|line| !line.starts_with("managers")).collect::<Vec<_>>().join("\n");
    let error = parse(&format!("{text}\nmanagers = [{managers}]")).unwrap_err().to_string();
    assert!(error.contains("more than 7 managers"), "{error}");
    let rates = ["{ amount = \"1 sat\", per = \"1 s\" }"; 9].join(", ");
    let error = said("rate = [", &format!("rate = [{rates}, "));
    assert!(error.contains("more than 8 rates"), "{error}");
}

#[test]
fn an_inline_secret_is_not_repeated_in_the_error_message() {
    for secret in ["\"hunter22\"", "[\"hunter22\"]", "{ value = \"hunter22\" }", "{ file = [\"hunter22\"] }"] {
        let error = parse(&good().replace("{ credential = \"hsm-pin\" }", secret)).unwrap_err().to_string();
        assert!(!error.contains("hunter22"), "{error}");
    }
}
