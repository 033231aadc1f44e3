//! Keys in memory, and a signer's folder around them.

use super::*;

/// Keys in memory, random nonces like a token's, and a door that the test opens and closes.
pub(super) struct MemoryKeystore {
    curve: Secp256k1<All>,
    master: Xpriv,
    door: Mutex<Door>,
    moved: Condvar,
}

#[derive(Default)]
pub(super) struct Door {
    pub(super) closed: bool,
    pub(super) waiting: usize,
    pub(super) away: bool,
    pub(super) wrong: bool,
}

impl MemoryKeystore {
    pub(super) fn new() -> Arc<Self> {
        let master = Xpriv::new_master(Network::Regtest, &[7; 32]).unwrap();
        Arc::new(Self { curve: Secp256k1::new(), master, door: Mutex::default(), moved: Condvar::new() })
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut Door)) {
        change(&mut self.door.lock().unwrap());
        self.moved.notify_all();
    }

    pub(super) fn wait_for_waiting(&self, count: usize) {
        let door = self.door.lock().unwrap();
        let (_door, time) = self.moved.wait_timeout_while(door, Duration::from_secs(60), |door| door.waiting < count).unwrap();
        assert!(!time.timed_out(), "nobody came to sign");
    }

    pub(super) fn account(&self) -> AccountKey {
        let path: DerivationPath = "84h/1h/0h".parse().unwrap();
        let xpub = Xpub::from_priv(&self.curve, &self.master.derive_priv(&self.curve, &path).unwrap());
        AccountKey { fingerprint: self.master.fingerprint(&self.curve), path, xpub }
    }

    fn unavailable() -> KeystoreError {
        KeystoreError::Unavailable { keystore: "memory".into(), reason: "away".into() }
    }
}

impl Keystore for MemoryKeystore {
    fn bind(&self, wallet: WalletBinding) -> Result<(), KeystoreError> {
        match &*self.door.lock().unwrap() {
            Door { away: true, .. } => Err(Self::unavailable()),
            Door { wrong: true, .. } => Err(KeystoreError::KeyMismatch { wallet: wallet.wallet, reason: "another key".into() }),
            _ => Ok(()),
        }
    }

    fn sign_tasks(&self, _: &str, tasks: &[SigningTask]) -> Result<Vec<InputSignature>, KeystoreError> {
        let mut door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        if door.away {
            return Err(Self::unavailable());
        }
        door.waiting += 1;
        self.moved.notify_all();
        let mut door = self.moved.wait_while(door, |door| door.closed).unwrap();
        door.waiting -= 1;
        drop(door);
        let sign = |task: &SigningTask| {
            let KeyLocator::Seed(path) = &task.key.locator else { panic!("not a seed") };
            let key = self.master.derive_priv(&self.curve, path).unwrap().private_key;
            let mut nonce = [0; 32];
            getrandom::fill(&mut nonce).unwrap();
            let signature = self.curve.sign_ecdsa_with_noncedata(&Message::from_digest(task.digest), &key, &nonce);
            let signature = bitcoin::ecdsa::Signature::sighash_all(signature).to_vec();
            InputSignature { input: task.input, public_key: task.key.public_key.to_bytes(), signature, place: SignaturePlace::Partial }
        };
        Ok(tasks.iter().map(sign).collect())
    }

    fn status(&self) -> KeystoreStatus {
        let ready = !self.door.lock().unwrap().away;
        KeystoreStatus { name: "memory".into(), token: "none".into(), state: if ready { "ready" } else { "away" }.into(), ready }
    }

    fn pool_keys(&self, _: &str, _: u32, _: u32, _: u32) -> Result<Vec<PublicKey>, KeystoreError> {
        Ok(vec![])
    }

    fn extend_pool(&self, _: &str, _: u32, _: u32) -> Result<u32, KeystoreError> {
        Ok(0)
    }
}

const GAP: u32 = 20;

/// A signer's folder and keys; daemons come and go on it.
pub(super) struct House {
    pub(super) folder: TempDir,
    pub(super) keystore: Arc<MemoryKeystore>,
    pub(super) managers: Vec<SigningKey>,
    pub(super) locks_on_forgery: bool,
    pub(super) total_sat: u64,
}

impl House {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Identity::create(folder.path()).unwrap();
        Ledger::create(folder.path()).unwrap();
        let managers = (1..=3).map(|n| SigningKey::from_bytes(&[n; 32])).collect();
        Self { folder, keystore: MemoryKeystore::new(), managers, locks_on_forgery: true, total_sat: 100_000_000 }
    }

    pub(super) fn descriptor(&self) -> String {
        let AccountKey { fingerprint, path, xpub } = self.keystore.account();
        format!("wpkh([{fingerprint}/{path}]{xpub}/<0;1>/*)")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    pub(super) fn parts(&self) -> Parts {
        let keystore = Arc::clone(&self.keystore) as Arc<dyn Keystore>;
        let keys = BoundKeys::Seed { accounts: vec![self.keystore.account()] };
        let wallet = Wallet::new("hot", Network::Regtest, &self.descriptor(), GAP, keys).unwrap();
        let limits = Limits { rates: vec![], total_sat: Some(self.total_sat) };
        Parts {
            name: "vault".into(),
            network: "regtest".into(),
            policy_hash: "ab".repeat(32),
            state: self.folder.path().into(),
            socket: self.socket(),
            roles: Roles::new([], []),
            discloses: false,
            terms: Terms::default(),
            wallets: vec![WalletPart { wallet, rules: SpendRules::default(), keystore: Arc::clone(&keystore), addresses_max: 3_000 }],
            keystores: vec![keystore],
            rules: PolicyRules { signer: limits, wallets: [("hot".into(), WalletPolicy::default())].into(), ..PolicyRules::default() },
            lease_sat: None,
            anchor: Box::new(NoAnchor),
            managers: (1..)
                .zip(&self.managers)
                .map(|(n, key)| Manager { name: format!("m{n}"), key: key.verifying_key().into() })
                .collect(),
            quorum: 2,
            locks_on_forgery: self.locks_on_forgery,
            attesting: None,
        }
    }

    pub(super) fn start(&self) -> Daemon {
        Daemon::start(self.parts()).unwrap()
    }

    pub(super) fn client(&self) -> Client {
        let mut client = Client::connect(self.socket()).unwrap();
        client.set_timeout(Some(Duration::from_secs(60))).unwrap();
        client
    }

    /// A payment of `sat` (fee included) from the receive address at `index`; `coin` tells one coin there from another.
    pub(super) fn payment(&self, index: u32, coin: u32, sat: u64) -> Vec<u8> {
        let scripts = Scripts::new(&self.descriptor()).unwrap();
        let descriptor = scripts.at(0, index).unwrap();
        let value = 10_000_000;
        let funding = bitcoin::Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: vec![bitcoin::TxIn {
                previous_output: bitcoin::OutPoint::new(bitcoin::Txid::from_byte_array([9; 32]), coin),
                ..Default::default()
            }],
            output: vec![bitcoin::TxOut { value: bitcoin::Amount::from_sat(value), script_pubkey: descriptor.script_pubkey() }],
        };
        let outputs = [
            Output::Pay(ScriptBuf::new_p2wpkh(&WPubkeyHash::all_zeros()), sat - 1_000),
            Output::Own(Box::new(scripts.at(1, 0).unwrap()), value - sat),
        ];
        spend::psbt(&[Coin::new(&funding, 0, descriptor)], &outputs).unwrap().serialize()
    }

    pub(super) fn command(&self, action: Action, by: &[&SigningKey]) -> Vec<u8> {
        let expires = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 3_600;
        let signer = Identity::open(self.folder.path()).unwrap().public().to_bytes();
        let mut serial = [0; 8];
        getrandom::fill(&mut serial).unwrap();
        let serial = u64::from_le_bytes(serial);
        let mut signed = SignedCommand::new(Command { signer, network: "regtest".into(), serial, expires, action, base: None });
        by.iter().for_each(|key| signed.sign(key).unwrap());
        signed.to_bytes().unwrap()
    }
}
