//! Nothing that a signer leaves behind holds a secret: not its log at the loudest level, not its errors, not the state folder, not
//! what the kernel shows of the process, not its memory as far as an administrator can read it.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bitcoin::{
    Network,
    bip32::{DerivationPath, Xpriv},
    secp256k1::Secp256k1,
};
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    mechanism::{Mechanism, aead::GcmParams},
    object::Attribute,
    session::UserType,
    types::AuthPin,
};
use postern_testkit::{Process, SignerSocket};
use rustix::process::{Pid, Resource, Rlimit, Signal};

use crate::desk::{Desk, Said, program};

const WRONG_PIN: &str = "wrong-pin-5309";
const UNSEAL: &str = "POSTERN_TEST_UNSEAL";

/// A secret in one of the forms in which it could get out.
struct Needle {
    name: String,
    bytes: Vec<u8>,
}

#[test]
fn no_log_error_file_process_table_or_core_holds_a_seed_a_key_or_a_pin() {
    let desk = Desk::new("secrets");
    let mut said: Vec<String> = vec![];
    let text = |words: Said| [words.out, words.err].concat();
    said.push(text(desk.postern(&["init"])));
    let table = desk.postern(&["wallet", "new", "hot", "--keystore", "hsm", "--kind", "seed", "--script", "wpkh"]);
    desk.configure(&table.out);
    said.push(text(table));
    said.push(text(desk.check(&[])));

    let mut signer = loud(&desk);
    signer.wait_for_socket(&desk.run.join("signer.sock")).unwrap();
    // What passes, what does not fit, what is no payment, what is no request.
    desk.payment("pay.psbt", 500_000);
    said.push(text(desk.postern(&["sign", "pay.psbt", "-o", "signed.psbt"])));
    desk.payment("large.psbt", 5_000_000);
    said.push(text(desk.postern(&["sign", "large.psbt"])));
    fs::write(desk.run.join("rubbish.psbt"), b"psbt\xff\x00").unwrap();
    said.push(text(desk.postern(&["sign", "rubbish.psbt"])));
    let mut socket = SignerSocket::connect(&desk.run.join("signer.sock")).unwrap();
    socket.send_bytes(b"rubbish").unwrap();
    let _ = socket.receive();
    said.push(text(desk.postern(&["status"])));
    assert!(desk.run.join("signed.psbt").exists(), "{said:?}");

    let needles = needles(&desk);
    let pid = signer.id();
    let mut places: Vec<(String, Vec<u8>)> = vec![];
    for file in ["cmdline", "environ"] {
        // The environment is for root only: others cannot look into the process.
        if let Ok(bytes) = fs::read(format!("/proc/{pid}/{file}")) {
            places.push((file.into(), bytes));
        }
    }
    if rustix::process::geteuid().is_root() {
        let memory = memory_of(pid);
        assert!(holds(&memory, b"tpub"), "the process's memory was not read");
        places.push(("its memory".into(), memory));
        let unlimited = Rlimit { current: None, maximum: None };
        // Not every root may (CAP_SYS_RESOURCE); the limit alone keeps the core away then.
        let _ = rustix::process::prlimit(Pid::from_raw(i32::try_from(pid).unwrap()), Resource::Core, unlimited);
    }
    signer.signal(Signal::ABORT).unwrap();
    let ended = signer.wait_for_end(postern_testkit::wait::PATIENCE).unwrap();
    assert!(!ended.core_dumped());

    // A wrong PIN, and the token gone.
    let pin = fs::read(desk.token.pin_file()).unwrap();
    fs::write(desk.token.pin_file(), WRONG_PIN).unwrap();
    let mut signer = loud(&desk);
    signer.wait_for_log("the token refused the PIN").unwrap();
    signer.wait_for_socket(&desk.run.join("signer.sock")).unwrap();
    said.push(text(desk.postern(&["sign", "pay.psbt"])));
    signer.stop().unwrap();
    fs::write(desk.token.pin_file(), "pin\nof two lines\n").unwrap();
    let mut signer = loud(&desk);
    signer.wait_for_end(postern_testkit::wait::PATIENCE).unwrap();
    fs::write(desk.token.pin_file(), pin).unwrap();
    desk.token.pull_out().unwrap();
    let mut signer = loud(&desk);
    signer.wait_for_log("there is no token").unwrap();
    signer.kill().unwrap();
    desk.token.put_back().unwrap();

    places.extend(said.into_iter().map(|text| ("what a program said".into(), text.into_bytes())));
    places.extend(files(desk.run.path(), desk.token.pin_file()));
    let log = fs::read_to_string(signer.log_path()).unwrap();
    assert!(log.contains("DEBUG") && places.iter().any(|(name, _)| name.ends_with("ledger.db")), "{:?}", names(&places));
    let found: Vec<String> = places
        .iter()
        .flat_map(|(place, bytes)| needles.iter().filter(|n| holds(bytes, &n.bytes)).map(move |n| format!("{} in {place}", n.name)))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));

    // The search can find: each secret, in each form, in a log of a hundred thousand lines.
    let planted = desk.run.folder("planted").unwrap();
    for needle in &needles {
        let mut log = b"nothing to see here\n".repeat(100_000);
        log.splice(1_000_007..1_000_007, needle.bytes.iter().copied());
        fs::write(planted.join("planted.log"), log).unwrap();
        assert!(files(&planted, desk.token.pin_file()).iter().all(|(_, bytes)| holds(bytes, &needle.bytes)), "{}", needle.name);
    }
}

/// The daemon with everything that it can log.
fn loud(desk: &Desk) -> Process {
    let mut command = program("postern-signer");
    let (name, conf) = desk.token.env();
    command.arg("run").arg("--config").arg(desk.config()).env(name, conf).env("RUST_LOG", "trace");
    Process::start(&desk.run, "signer", command).unwrap()
}

/// The wallet's seed, what derives from it, and the PINs, in every form.
fn needles(desk: &Desk) -> Vec<Needle> {
    let seed = unseal(desk);
    let secp = Secp256k1::new();
    let master = Xpriv::new_master(Network::Regtest, &seed).unwrap();
    let derived = |path: &str| master.derive_priv(&secp, &path.parse::<DerivationPath>().unwrap()).unwrap();
    let account = derived("84h/1h/0h");
    let descriptor = desk.postern(&["wallet", "export", "hot"]).done();
    let xpub = bitcoin::bip32::Xpub::from_priv(&secp, &account).to_string();
    assert!(descriptor.contains(&xpub), "this is not the wallet's seed");

    let mut needles = forms("the seed", &seed);
    let keys = [("the master key", master), ("the purpose's key", derived("84h")), ("the coin's key", derived("84h/1h"))];
    let more = [
        ("the account's key", account),
        ("the branch's key", derived("84h/1h/0h/0")),
        ("the coin's own key", derived("84h/1h/0h/0/0")),
        ("a test's key", derived("84h/1h/0h/1/0")),
    ];
    for (name, key) in keys.into_iter().chain(more) {
        needles.extend(forms(name, &key.private_key.secret_bytes()));
        needles.push(Needle { name: format!("{name} as xprv"), bytes: key.to_string().into_bytes() });
        needles.push(Needle { name: format!("{name} as WIF"), bytes: key.to_priv().to_wif().into_bytes() });
    }
    needles.extend(forms("the PIN", desk.token.pin().as_bytes()));
    needles.extend(forms("the wrong PIN", WRONG_PIN.as_bytes()));
    needles
}

/// Raw, hex, base64 wherever it begins, and as Rust prints bytes.
fn forms(name: &str, secret: &[u8]) -> Vec<Needle> {
    let mut forms = vec![
        ("raw".to_owned(), secret.to_vec()),
        ("hex".to_owned(), hex::encode(secret).into_bytes()),
        ("HEX".to_owned(), hex::encode_upper(secret).into_bytes()),
    ];
    for shift in 0..3 {
        let text = STANDARD.encode([&vec![0; shift], secret].concat());
        // The first and the last characters hold bits of the neighbours.
        let from = if shift == 0 { 0 } else { shift + 1 };
        forms.push((format!("base64, {shift} behind"), text.as_bytes()[from..(shift + secret.len()) / 3 * 4].to_vec()));
    }
    let debug = format!("{secret:?}");
    forms.push(("debug".to_owned(), debug.trim_matches(['[', ']']).as_bytes().to_vec()));
    forms.into_iter().map(|(form, bytes)| Needle { name: format!("{name} in {form}"), bytes }).collect()
}

/// The C library's search: hundreds of megabytes are gone through, and this build is not optimised.
fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    // SAFETY: reads the two slices.
    #[allow(unsafe_code)]
    let found = unsafe { libc::memmem(haystack.as_ptr().cast(), haystack.len(), needle.as_ptr().cast(), needle.len()) };
    !found.is_null()
}

fn names(places: &[(String, Vec<u8>)]) -> Vec<&str> {
    places.iter().map(|(name, _)| name.as_str()).collect()
}

/// All files of a run but the one that holds the PIN.
fn files(folder: &Path, pin_file: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, pin_file));
        } else if path.is_file() && path != pin_file {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found
}

/// What root can read of a process's memory.
fn memory_of(pid: u32) -> Vec<u8> {
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut all = vec![];
    for line in fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        if !rest.starts_with('r') || memory.seek(SeekFrom::Start(from)).is_err() {
            continue;
        }
        let mut part = vec![0; usize::try_from(to - from).unwrap()];
        // Secret memory cannot be read, and that is the point.
        if memory.read_exact(&mut part).is_ok() {
            all.extend(part);
        }
    }
    all
}

/// Opens the sealed seed with the token, as nobody does who has not the PIN. SoftHSM reads its configuration from the environment,
/// so it is done in a process of its own.
fn unseal(desk: &Desk) -> Vec<u8> {
    let (name, conf) = desk.token.env();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "secrets::unseal_a_seed", "--ignored", "--nocapture"])
        .env(UNSEAL, desk.run.join("state/seed-hot.sealed"))
        .env(format!("{UNSEAL}_MODULE"), desk.token.module())
        .env(format!("{UNSEAL}_PIN"), desk.token.pin())
        .env(name, conf)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let seed = text.lines().find_map(|line| line.split_once("seed ")).unwrap_or_else(|| panic!("{text}")).1;
    hex::decode(seed.trim()).unwrap()
}

#[test]
#[ignore = "a part of the other test, in a process of its own"]
fn unseal_a_seed() {
    let Some(file) = std::env::var_os(UNSEAL).map(PathBuf::from) else { return };
    let get = |name: &str| std::env::var(format!("{UNSEAL}_{name}")).unwrap();
    let file = fs::read(file).unwrap();
    let mut decoder = minicbor::Decoder::new(&file);
    let (mut bound, mut nonce, mut sealed) = (vec![], vec![], vec![]);
    for _ in 0..decoder.map().unwrap().unwrap() {
        match decoder.u8().unwrap() {
            0 => {
                let start = decoder.position();
                decoder.skip().unwrap();
                bound = file[start..decoder.position()].to_vec();
            }
            2 => nonce = decoder.bytes().unwrap().to_vec(),
            3 => sealed = decoder.bytes().unwrap().to_vec(),
            _ => decoder.skip().unwrap(),
        }
    }
    let token = Pkcs11::new(get("MODULE")).unwrap();
    token.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let slot = token.get_slots_with_initialized_token().unwrap()[0];
    let session = token.open_ro_session(slot).unwrap();
    session.login(UserType::User, Some(&AuthPin::from(get("PIN").as_str()))).unwrap();
    let key = session.find_objects(&[Attribute::Label(b"postern:hot:seal".to_vec())]).unwrap()[0];
    let parameters = GcmParams::new(&mut nonce, &bound, 128.into()).unwrap();
    let seed = session.decrypt(&Mechanism::AesGcm(parameters), key, &sealed).unwrap();
    println!("seed {}", hex::encode(seed));
}
