//! Files that the configuration names, and the file itself.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn write(path: &Path, mode: u32, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
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
    assert!(said.contains("payees.txt:2:1: `nonsense` is no address"), "{said}");
    std::fs::remove_file(&list).unwrap();
    let said = Config::parse(&path, &text).unwrap_err().to_string();
    assert!(said.contains("payees.txt: cannot be read"), "{said}");
}

#[test]
fn a_file_that_is_too_large_or_not_text_is_not_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signer.toml");
    std::fs::File::create(&path).unwrap().set_len(2 * 1024 * 1024).unwrap();
    let said = Config::load(&path).unwrap_err().to_string();
    assert_eq!(said, format!("{}: larger than 1048576 bytes, too large to be a configuration; is it the right file?", path.display()));
    std::fs::write(&path, b"[signer]\nname = \"v\xffult\"").unwrap();
    let said = Config::load(&path).unwrap_err().to_string();
    let wanted = format!("{}:2:10: this is not UTF-8 text; save the file as UTF-8\n     2 | name = \"v\u{fffd}ult\"", path.display());
    assert_eq!(said, wanted);
}

#[test]
fn a_secret_that_is_missing_or_open_to_others_is_an_error_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signer.toml");
    let pin = folder.path().join("pin");
    // The module's place differs between machines; here it is only looked for.
    let module = folder.path().join("module.so");
    write(&module, 0o755, "");
    let text = good().replace("{ credential = \"hsm-pin\" }", "{ file = \"pin\" }");
    let text = text.replace("/usr/lib/softhsm/libsofthsm2.so", module.to_str().unwrap());
    let config = Config::parse(&path, &text).unwrap();
    let said = || config.check_machine().unwrap_err().to_string();
    let line = format!("{}:15:7: ", path.display());

    let error = said();
    assert!(error.starts_with(&format!("{line}the secret {} cannot be read: No such file", pin.display())), "{error}");
    write(&pin, 0o640, "1234");
    let error = said();
    assert!(error.starts_with(&format!("{line}the secret {0} can be read by others; chmod 600 {0}", pin.display())), "{error}");
    write(&pin, 0o600, "1234");
    assert_eq!(config.check_machine().unwrap(), Vec::<String>::new());
    // A relative path is meant from the configuration's folder, for the keystore as well.
    assert!(matches!(config.keystore("hsm"), Some(KeystoreConfig::Pkcs11(hsm)) if hsm.pin == PinSource::File(pin)));
    std::fs::remove_file(&module).unwrap();
    let error = said();
    assert!(error.starts_with(&format!("{}:13:10: {} cannot be opened", path.display(), module.display())), "{error}");
}

#[test]
fn a_user_that_does_not_exist_is_an_error_with_its_line() {
    let text = good().replace("[limits]", "[socket]\ngates = [\"root\", \"nobody-of-this-name\"]\n[limits]");
    let said = parse(&text).unwrap().check_machine().unwrap_err().to_string();
    assert!(said.starts_with("signer.toml:8:18: [socket] names the user \"nobody-of-this-name\""), "{said}");
}

#[test]
fn the_commented_example_loads_and_names_every_key_there_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/signer.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    Config::load(&path).unwrap();
    // What is commented out is right as well.
    let all: String = text.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line)).collect::<Vec<_>>().join("\n");
    let all = all.replace("kind = \"pkcs11\"\nkeystore = \"hsm\"\n", "kind = \"tpm\"\nkeystore = \"board\"\n");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("payees.txt"), "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx # vault\n").unwrap();
    let config = Config::parse(&folder.path().join("signer.toml"), &all).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.wallets.keys().collect::<Vec<_>>(), ["hot", "many", "vault"]);
    let keys = [
        "name",
        "network",
        "state",
        "socket",
        "disclose",
        "gates",
        "operators",
        "frame_max",
        "max_in_flight",
        "rate",
        "amount",
        "per",
        "burst",
        "total",
        "raise",
        "kind",
        "keystore",
        "index",
        "lease",
        "module",
        "token",
        "label",
        "serial",
        "pin",
        "sessions",
        "tcti",
        "pcrs",
        "auth",
        "descriptor",
        "public_key",
        "fingerprint",
        "gap",
        "pool_max",
        "fee",
        "max",
        "max_rate",
        "max_share",
        "destinations",
        "allow_op_return",
        "allow_foreign_inputs",
        "max_locktime_height",
        "quorum",
        "managers",
        "key",
        "on_forgery",
        "file",
        "credential",
    ];
    for key in keys {
        assert!(all.contains(&format!("{key} = ")), "{key}");
    }
}
