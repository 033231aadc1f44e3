//! A token for each test. SoftHSM reads its configuration from the environment, once a process: so each test runs itself again
//! as a child with a token of its own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use bitcoin::{PublicKey, secp256k1::Message};
use cryptoki::{
    context::Pkcs11,
    session::{Session, UserType},
    slot::Slot,
    types::AuthPin,
};
use postern_protocol::reply::InputSignature;
use postern_signer::{
    analysis::{SIGHASH_ALL, Scheme, SigningTask},
    keystore::{Keystore as _, KeystoreError, PinSource, Pkcs11Config, Pkcs11Keystore, WalletBinding},
    wallet::{KeyLocator, KeyRef},
};
use postern_testkit::{TempRun, Token};

const INSIDE: &str = "POSTERN_KEYSTORE_TEST";

/// Where a test finds its token.
pub(crate) struct Site {
    pub(crate) run: PathBuf,
    pub(crate) label: String,
    pub(crate) serial: String,
    pub(crate) module: PathBuf,
}

/// Runs a test on a token of its own. `test` is the test's full name.
pub(crate) fn on_token(test: &str, body: impl FnOnce(&Site)) {
    if env::var_os(INSIDE).is_some_and(|inside| inside == test) {
        let _ = env_logger::builder().is_test(false).try_init();
        let get = |name: &str| env::var(format!("{INSIDE}_{name}")).unwrap();
        body(&Site { run: get("RUN").into(), label: get("LABEL"), serial: get("SERIAL"), module: get("MODULE").into() });
        return;
    }
    let run = TempRun::new(test.rsplit("::").next().unwrap()).unwrap();
    let token = Token::new(&run, "vault").unwrap();
    run.folder("state").unwrap();
    let output = child(test)
        .env(token.env().0, token.env().1)
        .env(format!("{INSIDE}_RUN"), run.path())
        .env(format!("{INSIDE}_LABEL"), token.label())
        .env(format!("{INSIDE}_SERIAL"), token.serial())
        .env(format!("{INSIDE}_MODULE"), token.module())
        .output()
        .unwrap();
    let text = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// This test once more, in a process of its own.
pub(crate) fn child(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]).env(INSIDE, test);
    command
}

impl Site {
    pub(crate) fn state(&self) -> PathBuf {
        self.run.join("state")
    }

    pub(crate) fn pin_file(&self) -> PathBuf {
        self.run.join("vault.pin")
    }

    pub(crate) fn config(&self) -> Pkcs11Config {
        Pkcs11Config {
            name: "hsm".into(),
            module: self.module.clone(),
            token_label: self.label.clone(),
            token_serial: self.serial.clone(),
            pin: PinSource::File(self.pin_file()),
            sessions: 4,
            state: self.state(),
        }
    }

    /// A connected keystore.
    pub(crate) fn open(&self) -> Pkcs11Keystore {
        let keystore = Pkcs11Keystore::open(self.config()).unwrap();
        keystore.wait_ready(Duration::from_secs(20)).unwrap();
        keystore
    }

    /// A connected keystore with a wallet whose keys were found.
    pub(crate) fn open_bound(&self, wallet: WalletBinding) -> Pkcs11Keystore {
        let keystore = self.open();
        keystore.bind(wallet).unwrap();
        keystore
    }

    /// The same token through another door: what a thief with the PIN can do.
    pub(crate) fn thief(&self) -> (Pkcs11, Session) {
        let context = Pkcs11::new(&self.module).unwrap();
        let _ = context.initialize(cryptoki::context::CInitializeArgs::new(cryptoki::context::CInitializeFlags::OS_LOCKING_OK));
        let slot = context
            .get_slots_with_token()
            .unwrap()
            .into_iter()
            .find(|slot| context.get_token_info(*slot).unwrap().serial_number().trim() == self.serial)
            .unwrap();
        let session = context.open_rw_session(slot).unwrap();
        let pin = AuthPin::from(fs::read_to_string(self.pin_file()).unwrap());
        // Already logged in when a keystore of this process is.
        let _ = session.login(UserType::User, Some(&pin));
        (context, session)
    }

    /// `C_CloseAllSessions`, which `cryptoki` does not have.
    #[allow(unsafe_code)]
    pub(crate) fn close_all_sessions(&self, slot: Slot) {
        // SAFETY: loads the library that is loaded already, and calls it with a slot's number.
        let rv = unsafe { cryptoki_sys::Pkcs11::new(&self.module).unwrap().C_CloseAllSessions.unwrap()(slot.id()) };
        assert_eq!(rv, cryptoki_sys::CKR_OK);
    }

    fn tokens(&self) -> (PathBuf, PathBuf) {
        (self.run.join("vault.tokens"), self.run.join("vault.pulled"))
    }

    /// As if the token was pulled out.
    pub(crate) fn pull_out(&self) {
        let (tokens, pulled) = self.tokens();
        fs::rename(&tokens, pulled).unwrap();
        fs::create_dir(&tokens).unwrap();
    }

    /// Puts it back as it was.
    pub(crate) fn put_back(&self) {
        let (tokens, pulled) = self.tokens();
        fs::remove_dir_all(&tokens).unwrap();
        fs::rename(pulled, tokens).unwrap();
    }

    /// The files that the token consists of.
    pub(crate) fn token_files(&self) -> Vec<PathBuf> {
        fn list(folder: &Path, files: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    list(&path, files);
                } else if path.extension().is_some_and(|extension| extension == "object") {
                    files.push(path);
                }
            }
        }
        let mut files = Vec::new();
        list(&self.tokens().0, &mut files);
        files.sort();
        files
    }
}

/// A task with a digest that depends on its input.
pub(crate) fn task(input: u32, locator: KeyLocator, public_key: PublicKey, scheme: Scheme) -> SigningTask {
    let mut digest = [0x42; 32];
    digest[..4].copy_from_slice(&input.to_be_bytes());
    let sighash_byte = matches!(scheme, Scheme::Ecdsa).then_some(SIGHASH_ALL);
    SigningTask { input, key: KeyRef { locator, public_key }, digest, scheme, sighash_byte }
}

/// Asserts that these are the low-S signatures of these ECDSA tasks, in their order.
pub(crate) fn assert_ecdsa(tasks: &[SigningTask], signatures: &[InputSignature]) {
    let curve = bitcoin::secp256k1::Secp256k1::verification_only();
    assert_eq!(tasks.len(), signatures.len());
    for (task, answer) in tasks.iter().zip(signatures) {
        assert_eq!((answer.input, &answer.public_key), (task.input, &task.key.public_key.to_bytes()));
        let signature = bitcoin::ecdsa::Signature::from_slice(&answer.signature).unwrap();
        assert_eq!(signature.sighash_type, bitcoin::EcdsaSighashType::All);
        let mut low = signature.signature;
        low.normalize_s();
        assert_eq!(low, signature.signature, "high S");
        curve.verify_ecdsa(&Message::from_digest(task.digest), &signature.signature, &task.key.public_key.inner).unwrap();
    }
}

/// The code that the asker of a failing call is told.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, KeystoreError>) -> &'static str {
    result.unwrap_err().code().as_str()
}
