//! The firmware's event log: what was measured into each PCR, in order (TCG PC Client Platform Firmware Profile §10). It is not signed:
//! what it says of a PCR is believed only when its measurements, repeated, give the value that the TPM signed.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::{EVENT_LOG_MAX, PcrValues, Statement, pcr_meaning, quote::Rest};

/// Most events that are looked at; machines have about a hundred.
const EVENTS_MAX: usize = 8_192;
/// Most banks that a log may announce.
const BANKS_MAX: u32 = 16;
/// TPM_ALG_SHA256.
const SHA256: u16 = 0x000b;
/// Says something and is not measured.
const NO_ACTION: u32 = 3;
/// How the first event of a log with several banks begins.
const SPEC_ID: &[u8] = b"Spec ID Event03\0";
/// From where the TPM was started: PCR 0 begins with it.
const LOCALITY: &[u8] = b"StartupLocality\0";
/// Characters shown of what an event holds.
const SHOWN_MAX: usize = 60;
/// Events shown of one PCR.
const LISTED_MAX: usize = 8;

/// Why bytes are no event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventLogError {
    /// Over [`EVENT_LOG_MAX`].
    #[error("it has more than {EVENT_LOG_MAX} bytes")]
    TooLarge,
    /// An older form, with SHA-1 alone, or none at all.
    #[error("it is not in the crypto-agile form (TCG PFP §10.4.5)")]
    Form,
    /// No SHA-256 in it.
    #[error("it has no SHA-256 digests")]
    NoSha256,
    /// It ends within an event, or an event has another set of digests than was announced.
    #[error("event {0} is damaged")]
    Damaged(usize),
    /// Over the number that is looked at.
    #[error("it has more than {EVENTS_MAX} events")]
    TooMany,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Into this PCR.
    pub pcr: u32,
    /// EV_….
    pub kind: u32,
    /// What the PCR was extended with.
    pub digest: [u8; 32],
    /// What the firmware says that it was. Not measured in every kind.
    pub data: Vec<u8>,
}

/// A log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventLog {
    events: Vec<Event>,
    locality: u8,
}

/// Numbers in a log have their lowest byte first.
fn u16(rest: &mut Rest<'_>) -> Option<u16> {
    rest.array().map(u16::from_le_bytes)
}

fn u32(rest: &mut Rest<'_>) -> Option<u32> {
    rest.array().map(u32::from_le_bytes)
}

/// Four bytes of length, and so many bytes.
fn sized<'a>(rest: &mut Rest<'a>) -> Option<&'a [u8]> {
    let length = usize::try_from(u32(rest)?).ok()?;
    rest.take(length)
}

/// The banks of a log and the lengths of their digests, from its first event.
fn banks(rest: &mut Rest<'_>) -> Option<Vec<(u16, usize)>> {
    rest.take(4 + 4 + 20)?; // PCR, kind and SHA-1 of an event that is not measured
    let mut spec = Rest(sized(rest)?);
    if spec.take(SPEC_ID.len())? != SPEC_ID {
        return None;
    }
    spec.take(4 + 4)?; // class, version, errata, size of a number
    let count = u32(&mut spec).filter(|count| *count <= BANKS_MAX)?;
    (0..count).map(|_| Some((u16(&mut spec)?, usize::from(u16(&mut spec)?)))).collect()
}

impl EventLog {
    /// Reads a log. Its bytes may be anybody's.
    ///
    /// # Errors
    /// [`EventLogError`]; never panics, whatever the bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, EventLogError> {
        if bytes.len() > EVENT_LOG_MAX {
            return Err(EventLogError::TooLarge);
        }
        let mut rest = Rest(bytes);
        let banks = banks(&mut rest).ok_or(EventLogError::Form)?;
        if !banks.contains(&(SHA256, 32)) {
            return Err(EventLogError::NoSha256);
        }
        let mut log = Self::default();
        let mut number = 0_usize;
        // Some firmware hands its whole buffer over: zeros follow the last event, and an event without digests is none.
        while rest.0.iter().any(|byte| *byte != 0) {
            number = number.saturating_add(1);
            if number > EVENTS_MAX {
                return Err(EventLogError::TooMany);
            }
            let event = event(&mut rest, &banks).ok_or(EventLogError::Damaged(number))?;
            if event.kind != NO_ACTION {
                log.events.push(event);
            } else if let Some([locality]) = event.data.strip_prefix(LOCALITY) {
                log.locality = *locality;
            }
        }
        Ok(log)
    }

    /// What was measured into a PCR, in order.
    pub fn of(&self, pcr: u8) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.pcr == u32::from(pcr))
    }

    /// Whether a PCR of these holds what was measured into it, and nothing else.
    fn gives(&self, pcrs: &PcrValues, pcr: u8) -> bool {
        pcrs.0.get(&pcr).is_some_and(|value| self.replay(pcr) == *value)
    }

    /// What a PCR holds after these measurements and no others.
    #[must_use]
    pub fn replay(&self, pcr: u8) -> [u8; 32] {
        let mut first = if (17..=22).contains(&pcr) { [0xff; 32] } else { [0; 32] };
        if let ([.., last], 0) = (&mut first, pcr) {
            *last = self.locality;
        }
        self.of(pcr).fold(first, |held, event| Sha256::new().chain_update(held).chain_update(event.digest).finalize().into())
    }
}

fn event(rest: &mut Rest<'_>, banks: &[(u16, usize)]) -> Option<Event> {
    let (pcr, kind) = (u32(rest)?, u32(rest)?);
    let count = u32(rest).filter(|count| *count <= BANKS_MAX)?;
    let mut digest = None;
    for _ in 0..count {
        let bank = u16(rest)?;
        let (_, length) = banks.iter().find(|(known, _)| *known == bank)?;
        let value = rest.take(*length)?;
        if bank == SHA256 {
            digest = Some(value.try_into().ok()?);
        }
    }
    Some(Event { pcr, kind, digest: digest?, data: sized(rest)?.to_vec() })
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            0x1 => "EV_POST_CODE",
            0x4 => "EV_SEPARATOR",
            0x5 => "EV_ACTION",
            0x6 => "EV_EVENT_TAG",
            0x7 => "EV_S_CRTM_CONTENTS",
            0x8 => "EV_S_CRTM_VERSION",
            0x9 => "EV_CPU_MICROCODE",
            0xa => "EV_PLATFORM_CONFIG_FLAGS",
            0xb => "EV_TABLE_OF_DEVICES",
            0xc => "EV_COMPACT_HASH",
            0xd => "EV_IPL",
            0x8000_0001 => "EV_EFI_VARIABLE_DRIVER_CONFIG",
            0x8000_0002 => "EV_EFI_VARIABLE_BOOT",
            0x8000_0003 => "EV_EFI_BOOT_SERVICES_APPLICATION",
            0x8000_0004 => "EV_EFI_BOOT_SERVICES_DRIVER",
            0x8000_0005 => "EV_EFI_RUNTIME_SERVICES_DRIVER",
            0x8000_0006 => "EV_EFI_GPT_EVENT",
            0x8000_0007 => "EV_EFI_ACTION",
            0x8000_0008 => "EV_EFI_PLATFORM_FIRMWARE_BLOB",
            0x8000_0009 => "EV_EFI_HANDOFF_TABLES",
            0x8000_000a => "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
            0x8000_000b => "EV_EFI_HANDOFF_TABLES2",
            0x8000_000c => "EV_EFI_VARIABLE_BOOT2",
            0x8000_00e0 => "EV_EFI_VARIABLE_AUTHORITY",
            other => return write!(f, "event {other:#x} {}{}", Shown(&self.data), hex::encode(self.digest)),
        };
        write!(f, "{name} {}{}", Shown(&self.data), hex::encode(self.digest))
    }
}

/// The text in an event's data, if there is any: ASCII, or UTF-16 as in a variable's name. Never anything that moves a cursor.
struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // UEFI_VARIABLE_DATA: a GUID, the name's length in characters, the data's length, the name.
        let name = self.0.get(16..24).and_then(|length| usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok());
        let name =
            name.filter(|length| (1..=SHOWN_MAX).contains(length)).and_then(|length| self.0.get(32..)?.get(..length.checked_mul(2)?));
        let wide = |bytes: &[u8]| -> Option<String> {
            bytes.chunks(2).map(|pair| if let [low @ 0x20..=0x7e, 0] = pair { Some(char::from(*low)) } else { None }).collect()
        };
        let data = self.0.strip_suffix(&[0, 0]).unwrap_or(self.0);
        let narrow = || -> Option<String> {
            let text = self.0.strip_suffix(&[0]).unwrap_or(self.0);
            text.iter().map(|byte| if (0x20..=0x7e).contains(byte) { Some(char::from(*byte)) } else { None }).collect()
        };
        match name.and_then(wide).or_else(narrow).or_else(|| wide(data)).filter(|text| !text.is_empty()) {
            Some(text) => write!(f, "`{}` ", text.chars().take(SHOWN_MAX).collect::<String>()),
            None => Ok(()),
        }
    }
}

/// What an event log says of a statement's PCRs, in words, one line each; and, next to one that is known, what was measured otherwise.
/// It judges nothing: whether a statement holds is [`Statement::verify`]'s.
#[must_use]
pub fn explain(now: &Statement, known: Option<&Statement>) -> Vec<String> {
    let log = match now.event_log.as_deref().map(EventLog::parse) {
        None => return vec!["no event log came with it: the PCRs are known, and not what was measured into them".into()],
        Some(Err(e)) => return vec![format!("the event log that came with it is not used: {e}")],
        Some(Ok(log)) => log,
    };
    let of_pcr = |index| {
        let (name, count) = (pcr_meaning(index), log.of(index).count());
        if log.gives(&now.pcrs, index) {
            format!("PCR {index} ({name}): the log's {count} measurements give its value")
        } else {
            format!(
                "PCR {index} ({name}): the log's {count} measurements do not give its value: something was measured that is not in it, after \
                 the firmware handed over, or it is another boot's"
            )
        }
    };
    let mut lines: Vec<String> = now.pcrs.set().iter().map(of_pcr).collect();
    lines.extend(known.into_iter().flat_map(|known| changed_measurements(now, known)));
    lines
}

/// What was measured otherwise than in a statement that is known, into PCRs whose value changed and that both logs give.
#[must_use]
pub fn changed_measurements(now: &Statement, known: &Statement) -> Vec<String> {
    let read = |statement: &Statement| EventLog::parse(statement.event_log.as_deref()?).ok();
    let (Some(log), Some(before)) = (read(now), read(known)) else { return vec![] };
    let explained = |index: &u8| log.gives(&now.pcrs, *index) && before.gives(&known.pcrs, *index);
    now.pcrs.differing(&known.pcrs).iter().filter(|index| explained(index)).flat_map(|index| changes(*index, &before, &log)).collect()
}

/// What was measured before and not now, and now and not before.
fn changes(index: u8, before: &EventLog, now: &EventLog) -> Vec<String> {
    let only = |one: &EventLog, other: &EventLog, word: &str| -> Vec<String> {
        let mut others: Vec<_> = other.of(index).map(|event| (event.kind, event.digest)).collect();
        let mut lines: Vec<String> = Vec::new();
        for event in one.of(index) {
            match others.iter().position(|other| *other == (event.kind, event.digest)) {
                Some(place) => drop(others.swap_remove(place)),
                None => lines.push(format!("PCR {index}: {word} {event}")),
            }
        }
        if lines.len() > LISTED_MAX {
            let more = lines.len().saturating_sub(LISTED_MAX);
            lines.truncate(LISTED_MAX);
            lines.push(format!("PCR {index}: and {more} more"));
        }
        lines
    };
    let mut lines = only(before, now, "no longer");
    lines.extend(only(now, before, "new"));
    if lines.is_empty() {
        lines.push(format!("PCR {index}: the same measurements in another order"));
    }
    lines
}

#[cfg(test)]
mod tests;
