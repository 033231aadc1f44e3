//! C_SignInit and C_Sign with nothing around them.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    object::{Attribute, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    types::AuthPin,
};
use serde::{Deserialize, Serialize};

use crate::processor::Rooms;

/// What was measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    signatures: usize,
    seconds: f64,
    processor_s: f64,
    /// Milliseconds of each call of one session alone.
    pub(crate) single_ms: Vec<f64>,
}

impl Figures {
    pub(crate) fn rate(&self) -> f64 {
        self.signatures as f64 / self.seconds
    }

    pub(crate) fn processor_ms(&self) -> f64 {
        self.processor_s * 1e3 / self.signatures as f64
    }
}

/// Signs on each session for a while, then on one alone, and writes the figures.
pub(crate) fn measure(module: &Path, pin_file: &Path, sessions: usize, time: Duration, single: usize) -> Result<()> {
    let context = Pkcs11::new(module)?;
    context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
    let slot = *context.get_slots_with_initialized_token()?.first().context("no token")?;
    let first = context.open_ro_session(slot)?;
    first.login(UserType::User, Some(&AuthPin::from(std::fs::read_to_string(pin_file)?)))?;
    let key = *first.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)])?.first().context("no key")?;
    let calls = Calls::load(module)?;

    let opened: Vec<Session> = (0..sessions).map(|_| context.open_ro_session(slot)).collect::<Result<_, _>>()?;
    let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (before, started) = (Rooms::read(std::process::id())?, Instant::now());
    let (signatures, seconds, used) = thread::scope(|scope| {
        let workers: Vec<_> = opened
            .into_iter()
            .map(|session| {
                let (over, done, calls) = (&over, &done, &calls);
                scope.spawn(move || -> Result<()> {
                    while !over.load(Ordering::Relaxed) {
                        calls.sign(&session, key, &[7; 32])?;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        thread::sleep(time);
        let used = Rooms::read(std::process::id())?;
        let counted = (done.load(Ordering::Relaxed), started.elapsed().as_secs_f64(), used);
        over.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        anyhow::Ok(counted)
    })?;
    let processor_s = used.since(&before, signatures).total_s();
    let single_ms = (0..single)
        .map(|_| {
            let started = Instant::now();
            calls.sign(&first, key, &[7; 32])?;
            Ok(started.elapsed().as_secs_f64() * 1e3)
        })
        .collect::<Result<_>>()?;
    println!("{}", serde_json::to_string(&Figures { signatures, seconds, processor_s, single_ms })?);
    Ok(())
}

type SignInit = unsafe extern "C" fn(
    cryptoki_sys::CK_SESSION_HANDLE,
    *mut cryptoki_sys::CK_MECHANISM,
    cryptoki_sys::CK_OBJECT_HANDLE,
) -> cryptoki_sys::CK_RV;
type Sign = unsafe extern "C" fn(
    cryptoki_sys::CK_SESSION_HANDLE,
    *mut u8,
    cryptoki_sys::CK_ULONG,
    *mut u8,
    *mut cryptoki_sys::CK_ULONG,
) -> cryptoki_sys::CK_RV;

struct Calls {
    sign_init: SignInit,
    sign: Sign,
}

#[allow(unsafe_code)] // The bare C calls are what is measured.
impl Calls {
    fn load(module: &Path) -> Result<Self> {
        // SAFETY: the module is loaded in this process already.
        let library = unsafe { cryptoki_sys::Pkcs11::new(module) }?;
        let get_list = *library.C_GetFunctionList.as_ref().map_err(|e| anyhow::anyhow!("{e}"))?;
        let mut list: *mut cryptoki_sys::CK_FUNCTION_LIST = std::ptr::null_mut();
        // SAFETY: the only argument is where to put the pointer.
        let rv = unsafe { get_list(&mut list) };
        ensure!(rv == cryptoki_sys::CKR_OK && !list.is_null(), "C_GetFunctionList: {rv}");
        std::mem::forget(library);
        // SAFETY: not null; it lives as long as the module, which is not unloaded.
        let list = unsafe { &*list };
        Ok(Self { sign_init: list.C_SignInit.context("no C_SignInit")?, sign: list.C_Sign.context("no C_Sign")? })
    }

    fn sign(&self, session: &Session, key: ObjectHandle, digest: &[u8; 32]) -> Result<()> {
        let mut mechanism =
            cryptoki_sys::CK_MECHANISM { mechanism: cryptoki_sys::CKM_ECDSA, pParameter: std::ptr::null_mut(), ulParameterLen: 0 };
        let (mut signature, mut length) = ([0u8; 64], 64);
        let mut digest = *digest;
        // SAFETY: the pointers are to locals that outlive the calls, with their true lengths.
        let rv = unsafe { (self.sign_init)(session.handle(), &mut mechanism, key.handle()) };
        ensure!(rv == cryptoki_sys::CKR_OK, "C_SignInit: {rv}");
        // SAFETY: as above.
        let rv = unsafe { (self.sign)(session.handle(), digest.as_mut_ptr(), 32, signature.as_mut_ptr(), &mut length) };
        ensure!(rv == cryptoki_sys::CKR_OK && length == 64, "C_Sign: {rv}");
        Ok(())
    }
}
