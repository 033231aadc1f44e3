//! Secrets that open on this board, booted like this, with the auth value, and in no other case.

use postern_signer::tpm::{Sealed, Tpm, TpmError};

use crate::board::{Board, auth, pcrs};

const SECRET: &[u8] = &[0x5e; 64];

fn seal(tpm: &Tpm, secret: &str) -> Sealed {
    tpm.with(|tpm| {
        let now = tpm.pcrs(&pcrs())?;
        tpm.seal(SECRET, &auth(secret), &now)
    })
    .unwrap()
}

fn unseal(tpm: &Tpm, sealed: &Sealed, secret: &str) -> Result<Vec<u8>, TpmError> {
    tpm.with_auth(|tpm| tpm.unseal(sealed, &auth(secret), &pcrs())).map(|secret| secret.to_vec())
}

#[test]
fn a_sealed_secret_opens_again_after_a_power_cut() {
    let mut board = Board::new("power_cut");
    board.measure(11, 1);
    let tpm = board.tpm();
    let sealed = seal(&tpm, "right");
    assert_eq!(unseal(&tpm, &sealed, "right").unwrap(), SECRET);
    board.swtpm.kill().unwrap();
    assert!(matches!(unseal(&tpm, &sealed, "right"), Err(TpmError::Unavailable(_))));
    board.swtpm.start_again().unwrap();
    // The same handle goes on. The PCR is at zero now, until the same is measured.
    assert_eq!(unseal(&tpm, &sealed, "right"), Err(TpmError::Policy));
    board.measure(11, 1);
    assert_eq!(unseal(&tpm, &sealed, "right").unwrap(), SECRET);
}

#[test]
fn a_sealed_secret_opens_when_nothing_else_was_booted() {
    let board = Board::new("booted");
    let tpm = board.tpm();
    let sealed = seal(&tpm, "right");
    board.measure(12, 1);
    assert_eq!(unseal(&tpm, &sealed, "right").unwrap(), SECRET, "PCR 12 is not in the policy");
    board.measure(7, 1);
    assert_eq!(unseal(&tpm, &sealed, "right"), Err(TpmError::Policy));
    assert_eq!(tpm.with(|tpm| tpm.lockout()).unwrap().failed, 0, "another boot is no wrong auth value");
}

#[test]
fn a_secret_sealed_to_a_boot_to_come_opens_then_and_not_before() {
    let board = Board::new("to_come");
    let tpm = board.tpm();
    let mut coming = tpm.with(|tpm| tpm.pcrs(&pcrs())).unwrap();
    // TPM2_PCR_Extend: the hash of the old value and the measurement (TPM 2.0 Part 1 §17.4).
    use sha2::{Digest as _, Sha256};
    let extended = Sha256::new().chain_update([0; 32]).chain_update([9; 32]).finalize();
    coming.0.insert(11, extended.into());
    let sealed = tpm.with(|tpm| tpm.seal(SECRET, &auth("right"), &coming)).unwrap();
    assert_eq!(unseal(&tpm, &sealed, "right"), Err(TpmError::Policy));
    board.measure(11, 9);
    assert_eq!(tpm.with(|tpm| tpm.pcrs(&pcrs())).unwrap(), coming);
    assert_eq!(unseal(&tpm, &sealed, "right").unwrap(), SECRET);
}

#[test]
fn a_wrong_auth_value_is_tried_once() {
    let board = Board::new("wrong_auth");
    let sealed = seal(&board.tpm(), "right");
    let tpm = board.tpm();
    for _ in 0..3 {
        assert_eq!(unseal(&tpm, &sealed, "wrong"), Err(TpmError::Auth));
        // Nor the right one: this handle has proven to be configured wrongly.
        assert_eq!(unseal(&tpm.clone(), &sealed, "right"), Err(TpmError::Auth));
    }
    assert_eq!(tpm.with(|tpm| tpm.lockout()).unwrap().failed, 1);
    assert_eq!(unseal(&board.tpm(), &sealed, "right").unwrap(), SECRET);
}

#[test]
fn the_last_try_before_the_lockout_is_left_to_a_person() {
    let board = Board::new("last_try");
    board.set_lockout(3, 7200);
    let sealed = seal(&board.tpm(), "right");
    for _ in 0..2 {
        assert_eq!(unseal(&board.tpm(), &sealed, "wrong"), Err(TpmError::Auth));
    }
    for secret in ["wrong", "right"] {
        let error = unseal(&board.tpm(), &sealed, secret).unwrap_err();
        assert!(matches!(error, TpmError::Lockout(lockout) if lockout.failed == 2 && lockout.max == 3), "{error}");
        assert!(error.to_string().contains("come back in 2 h"), "{error}");
    }
    board.swtpm.tool(&["dictionarylockout", "--clear-lockout"]).unwrap();
    assert_eq!(unseal(&board.tpm(), &sealed, "right").unwrap(), SECRET);
}

#[test]
fn in_lockout_the_error_says_when_to_come_back_and_the_right_value_works_then() {
    let board = Board::new("lockout");
    let sealed = seal(&board.tpm(), "right");
    board.set_lockout(2, 1);
    let mut told = None;
    for _ in 0..2 {
        // Past the guard: somebody else has the chip as well.
        let outcome = board.tpm().with(|tpm| tpm.unseal(&sealed, &auth("wrong"), &pcrs()));
        assert!(matches!(outcome, Err(TpmError::Auth)));
        told = Some(unseal(&board.tpm(), &sealed, "right"));
    }
    assert!(matches!(told, Some(Err(TpmError::Lockout(lockout))) if lockout.wait().is_some()), "{told:?}");
    // It forgives one each second.
    let tpm = board.tpm();
    postern_testkit::wait::wait_until("the lockout's end", postern_testkit::wait::PATIENCE, || match unseal(&tpm, &sealed, "right") {
        Ok(secret) => Ok(secret == SECRET),
        Err(TpmError::Lockout(_)) => Ok(false),
        Err(error) => Err(error.into()),
    })
    .unwrap();
}

#[test]
fn a_secret_of_another_board_does_not_open() {
    let board = Board::new("this_board");
    let other = Board::new("other_board");
    let sealed = seal(&other.tpm(), "right");
    assert_eq!(unseal(&board.tpm(), &sealed, "right"), Err(TpmError::Foreign));
    // Nor when it claims to be this one's.
    let forged = Sealed { parent: seal(&board.tpm(), "right").parent, ..sealed };
    assert_eq!(unseal(&board.tpm(), &forged, "right"), Err(TpmError::Foreign));
    assert_eq!(board.tpm().with(|tpm| tpm.lockout()).unwrap().failed, 0);
}

#[test]
fn a_changed_secret_does_not_open() {
    let board = Board::new("changed");
    let tpm = board.tpm();
    let sealed = seal(&tpm, "right");
    for place in (0..sealed.private.len()).step_by(7) {
        let mut changed = sealed.clone();
        changed.private[place] ^= 1;
        unseal(&tpm, &changed, "right").unwrap_err();
    }
    for place in 0..sealed.public.len() {
        let mut changed = sealed.clone();
        changed.public[place] ^= 1;
        unseal(&tpm, &changed, "right").unwrap_err();
    }
    for cut in [0, 1, 20] {
        let cut = Sealed { public: sealed.public[..cut].into(), private: sealed.private[..cut].into(), ..sealed.clone() };
        unseal(&tpm, &cut, "right").unwrap_err();
    }
    assert_eq!(unseal(&tpm, &sealed, "right").unwrap(), SECRET, "the TPM is as it was");
}

#[test]
fn a_secret_opens_under_the_machines_own_storage_key_and_with_an_owners_password() {
    let board = Board::new("owned");
    let before = seal(&board.tpm(), "right");
    board.swtpm.tool(&["createprimary", "-C", "o", "-G", "ecc", "-c", "srk.ctx"]).unwrap();
    board.swtpm.tool(&["evictcontrol", "-C", "o", "-c", "srk.ctx", "0x81000001"]).unwrap();
    board.swtpm.tool(&["flushcontext", "-t"]).unwrap();
    let under_it = seal(&board.tpm(), "right");
    assert_ne!(before.parent, under_it.parent);
    for sealed in [&before, &under_it] {
        assert_eq!(unseal(&board.tpm(), sealed, "right").unwrap(), SECRET);
    }
    board.swtpm.tool(&["changeauth", "-c", "o", "boss"]).unwrap();
    assert_eq!(unseal(&board.tpm(), &under_it, "right").unwrap(), SECRET);
    let error = unseal(&board.tpm(), &before, "right").unwrap_err();
    assert!(error.to_string().contains("0x81000001"), "{error}");
}

#[test]
fn random_bytes_come_from_the_tpm_and_a_software_one_is_known_as_such() {
    let mut board = Board::new("random");
    let tpm = board.tpm();
    let draw = || {
        tpm.with(|tpm| {
            let mut bytes = [0; 70];
            tpm.random(&mut bytes)?;
            Ok(bytes)
        })
    };
    let (one, two) = (draw().unwrap(), draw().unwrap());
    assert_ne!(one, two);
    assert!(one.chunks(10).all(|part| part != [0; 10]));
    let about = tpm.with(|tpm| tpm.about()).unwrap();
    assert_eq!(about.manufacturer, "IBM");
    assert!(about.software().is_some_and(|software| software.contains("swtpm")), "{about}");
    board.swtpm.kill().unwrap();
    assert!(matches!(draw(), Err(TpmError::Unavailable(_))), "random bytes without a TPM");
}
