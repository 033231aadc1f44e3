//! Connects, watches, and connects again: for ever, with back-off, and with one exception. A token that refuses the PIN is
//! not asked a second time, since it would lock.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use cryptoki::{
    context::Pkcs11,
    error::{Error, RvError},
    session::{Session, UserType},
    slot::Slot,
    types::AuthPin,
};

use super::{
    backoff::Backoff,
    core::{Core, Link},
    fault::{Failure, Fault},
    pool::Unwrapped,
    work::{Connection, Token},
};

/// How often an idle connection is looked at.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);
/// Back-off between attempts.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_CAP: Duration = Duration::from_secs(30);
/// A connection that lasted this long ends the back-off.
const LASTING: Duration = Duration::from_secs(10);

/// Why there is no connection.
enum ConnectError {
    Pin(String),
    Fault(Fault),
}

impl<E: Into<Fault>> From<E> for ConnectError {
    fn from(error: E) -> Self {
        Self::Fault(error.into())
    }
}

/// Runs until the keystore is closed.
pub(super) fn run(core: &Core) {
    let mut given_up = None;
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
    loop {
        match connect(core, &mut given_up) {
            Ok((connection, session)) => {
                log::info!("keystore `{}`: token `{}` is ready", core.config.name, core.config.token_label);
                let since = Instant::now();
                core.set_link(Link::Ready(connection));
                watch(core, connection, session);
                core.forget_keys();
                if since.elapsed() >= LASTING {
                    backoff.reset();
                } else if core.module.enter(connection.generation).is_ok() {
                    // It came back and failed again. Not so when another keystore initialised the module that we share.
                    let delay = backoff.next_delay();
                    core.wait_while(delay, |link| !matches!(link, Link::Closed));
                }
            }
            Err(ConnectError::Pin(reason)) => {
                log::error!("keystore `{}`: {reason}; nothing more is tried", core.config.name);
                core.set_link(Link::PinRefused(reason));
            }
            Err(ConnectError::Fault(fault)) => {
                let reason = fault.words();
                log::warn!("keystore `{}`: {reason}", core.config.name);
                core.forget_keys();
                core.set_link(Link::Connecting { failed: Some(reason) });
                let delay = backoff.next_delay();
                core.wait_while(delay, |link| !matches!(link, Link::Closed));
            }
        }
        // After a refused PIN this waits until the end.
        if let Link::Closed = core.wait_while(Duration::MAX, |link| matches!(link, Link::PinRefused(_))) {
            return;
        }
    }
}

/// Initialise, find the token, log in, check every wallet.
fn connect(core: &Core, given_up: &mut Option<u64>) -> Result<(Connection, Session), ConnectError> {
    let generation = core.module.initialise(*given_up)?;
    *given_up = Some(generation);
    let entered = core.module.enter(generation)?;
    let slot = find_token(core, entered.context())?;
    let session = entered.context().open_rw_session_no_drop(slot)?;
    let connection = Connection { generation, slot };
    let outcome = log_in(core, entered.context(), slot, &session).and_then(|()| {
        let mut unwrapped = Unwrapped::default();
        let (context, calls, witness) = (entered.context(), entered.calls(), &core.witness);
        let mut token = Token { context, calls, session: &session, connection, witness, unwrapped: &mut unwrapped };
        token.remember_any()?;
        for bound in core.all_bound() {
            core.check(&mut token, &bound)?;
        }
        Ok(())
    });
    match outcome {
        Ok(()) => Ok((connection, session)),
        Err(error) => {
            if let Err(error) = session.close() {
                log::debug!("C_CloseSession: {error}");
            }
            Err(error)
        }
    }
}

/// By label and serial; two tokens of the same name are one too many.
fn find_token(core: &Core, context: &Pkcs11) -> Result<Slot, Fault> {
    let config = &core.config;
    let mut found = None;
    for slot in context.get_slots_with_token()? {
        // A token that is pulled out while we look is none of ours.
        let Ok(info) = context.get_token_info(slot) else { continue };
        if info.label().trim_end() == config.token_label && info.serial_number().trim_end() == config.token_serial {
            if found.is_some() {
                return Err(Fault::lost(format!("two tokens are labelled `{}` with serial {}", config.token_label, config.token_serial)));
            }
            found = Some(slot);
        }
    }
    found.ok_or_else(|| Fault::lost(format!("there is no token labelled `{}` with serial {}", config.token_label, config.token_serial)))
}

fn log_in(core: &Core, context: &Pkcs11, slot: Slot, session: &Session) -> Result<(), ConnectError> {
    let info = context.get_token_info(slot)?;
    if info.user_pin_locked() {
        return Err(ConnectError::Pin("the token's user PIN is locked".into()));
    }
    if info.user_pin_final_try() {
        return Err(ConnectError::Pin(
            "the token would lock at the next wrong PIN, and the last attempt is left to a person: log in once with the vendor's tool"
                .into(),
        ));
    }
    let pin = std::str::from_utf8(&core.pin).map_err(|_| ConnectError::Pin("the PIN is not UTF-8".into()))?;
    let pin = AuthPin::from(pin);
    core.logins.fetch_add(1, Ordering::Relaxed);
    match session.login(UserType::User, Some(&pin)) {
        // Another keystore of this process is logged in to the same token.
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(error) => match Fault::from(error) {
            Fault::Call { reason, kind: Failure::Pin, .. } => Err(ConnectError::Pin(format!("the token refused the PIN ({reason})"))),
            fault => Err(fault.into()),
        },
    }
}

/// Looks after a connection until it is suspected or the keystore is closed.
fn watch(core: &Core, connection: Connection, session: Session) {
    let mut unwrapped = Unwrapped::default();
    loop {
        let link = core.wait_while(HEALTH_INTERVAL, |link| matches!(link, Link::Ready(ready) if *ready == connection));
        if !matches!(link, Link::Ready(_)) {
            break;
        }
        if let Err(fault) = look(core, connection, &session, &mut unwrapped) {
            core.suspect(connection, &fault.words());
            break;
        }
    }
    // Of another generation it is gone, and its handle may be somebody else's.
    let entered = core.module.enter(connection.generation);
    if entered.is_ok()
        && let Err(error) = session.close()
    {
        log::debug!("C_CloseSession: {error}");
    }
    drop(entered);
}

/// The token is the same one, its keys are there, and wallets that had trouble are checked again.
fn look(core: &Core, connection: Connection, session: &Session, unwrapped: &mut Unwrapped) -> Result<(), Fault> {
    let entered = core.module.enter(connection.generation)?;
    let info = entered.context().get_token_info(connection.slot)?;
    if info.serial_number().trim_end() != core.config.token_serial {
        return Err(Fault::lost("another token is in the slot"));
    }
    let (context, calls, witness) = (entered.context(), entered.calls(), &core.witness);
    let mut token = Token { context, calls, session, connection, witness, unwrapped };
    token.prove_presence()?;
    core.still_there(&token)?;
    for bound in core.all_bound() {
        if core.wants_check(&bound) {
            core.check(&mut token, &bound)?;
        }
    }
    Ok(())
}
