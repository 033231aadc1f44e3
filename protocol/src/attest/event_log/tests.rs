#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::*;
use crate::attest::tests::{Maker, NONCE};

/// A log in the crypto-agile form, with SHA-1 beside SHA-256 as firmware has it.
struct Writer(Vec<u8>);

impl Writer {
    fn new() -> Self {
        let mut spec = [SPEC_ID, &[0; 4], &[0, 2, 0, 2], &2_u32.to_le_bytes()].concat();
        spec.extend([0x04, 0, 20, 0, 0x0b, 0, 32, 0, 0]);
        let mut first = [&0_u32.to_le_bytes()[..], &NO_ACTION.to_le_bytes(), &[0; 20]].concat();
        first.extend(u32::try_from(spec.len()).unwrap().to_le_bytes());
        first.extend(spec);
        Self(first)
    }

    fn event(mut self, pcr: u32, kind: u32, digest: u8, data: &[u8]) -> Self {
        for number in [pcr, kind, 2] {
            self.0.extend(number.to_le_bytes());
        }
        self.0.extend([0x04, 0]);
        self.0.extend([digest; 20]);
        self.0.extend([0x0b, 0]);
        self.0.extend([digest; 32]);
        self.0.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        self.0.extend(data);
        self
    }
}

fn variable(name: &str) -> Vec<u8> {
    let wide: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let (length, data) = (u64::try_from(name.len()).unwrap(), 3_u64);
    [&[7; 16][..], &length.to_le_bytes(), &data.to_le_bytes(), &wide, &[1, 2, 3]].concat()
}

fn firmware() -> Writer {
    Writer::new().event(0, NO_ACTION, 0, &[LOCALITY, &[3]].concat()).event(0, 8, 1, b"1\0.\x002\0\0\0").event(
        7,
        0x8000_0001,
        2,
        &variable("SecureBoot"),
    )
}

/// A statement whose PCRs are what the log gives.
fn said(log: &Writer) -> Statement {
    let parsed = EventLog::parse(&log.0).unwrap();
    let values = [0, 7, 11].map(|pcr| (pcr, parsed.replay(pcr)));
    let mut statement = Maker::new(7).says_of(NONCE, PcrValues(values.into()));
    statement.event_log = Some(log.0.clone());
    statement
}

#[test]
fn a_log_gives_the_values_that_its_measurements_add_up_to() {
    let log = EventLog::parse(&firmware().0).unwrap();
    let extend = |held: [u8; 32], with: u8| -> [u8; 32] { Sha256::new().chain_update(held).chain_update([with; 32]).finalize().into() };
    let mut from_locality_3 = [0; 32];
    from_locality_3[31] = 3;
    assert_eq!(log.replay(0), extend(from_locality_3, 1));
    assert_eq!(log.replay(7), extend([0; 32], 2));
    assert_eq!((log.replay(11), log.replay(17)), ([0; 32], [0xff; 32]));
}

#[test]
fn a_changed_pcr_is_explained_by_the_measurements_that_changed() {
    let before = said(&firmware().event(7, 4, 5, &[0; 4]));
    let now = said(&firmware().event(7, 0x8000_00e0, 6, &variable("db")).event(7, 4, 5, &[0; 4]));
    let lines = explain(&now, Some(&before));
    assert!(lines.contains(&"PCR 7 (Secure Boot): the log's 3 measurements give its value".to_owned()), "{lines:?}");
    let changed: Vec<_> = lines.iter().filter(|line| line.starts_with("PCR 7: ")).collect();
    assert_eq!(changed, [&format!("PCR 7: new EV_EFI_VARIABLE_AUTHORITY `db` {}", "06".repeat(32))]);
    assert_eq!(explain(&before, Some(&before)).len(), 3, "nothing changed");
}

#[test]
fn what_a_log_says_of_a_pcr_is_not_believed_when_it_does_not_give_its_value() {
    let before = said(&firmware());
    let mut now = said(&firmware().event(7, 5, 9, b"harmless"));
    now.event_log = said(&firmware().event(7, 5, 8, b"a lie")).event_log;
    let lines = explain(&now, Some(&before));
    assert!(lines.iter().any(|line| line.starts_with("PCR 7 (Secure Boot): the log's 2 measurements do not give its value")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("a lie")), "{lines:?}");
    now.event_log = None;
    assert_eq!(explain(&now, None).len(), 1);
    assert!(now.verify(&now.expected_of_itself(NONCE, now.signer)).unwrap().iter().all(|finding| finding.holds), "a log is not needed");
    now.event_log = Some(b"rubbish".to_vec());
    assert!(explain(&now, Some(&before))[0].contains("not in the crypto-agile form"));
}

#[test]
fn many_changes_are_counted_and_what_firmware_writes_moves_no_cursor() {
    let many = (0..20).fold(firmware(), |log, n| log.event(7, 5, n + 10, b"\x1b[2Jwiped"));
    let lines = explain(&said(&many), Some(&said(&firmware())));
    assert!(lines.contains(&"PCR 7: and 12 more".to_owned()), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains('\x1b')), "{lines:?}");
}

#[test]
fn every_cut_and_every_changed_byte_of_a_log_is_an_error_or_another_log_and_nothing_panics() {
    let good = firmware().event(11, 13, 4, b"linux").0;
    for cut in 0..good.len() {
        assert_ne!(EventLog::parse(&good[..cut]), EventLog::parse(&good), "{cut}");
    }
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut changed = good.clone();
            changed[at] = value;
            if let Ok(log) = EventLog::parse(&changed) {
                let _ = (log.replay(0), log.events.iter().map(ToString::to_string).collect::<Vec<_>>());
            }
        }
    }
    let padded = [good.as_slice(), &[0; 64]].concat();
    assert_eq!(EventLog::parse(&padded), EventLog::parse(&good), "firmware hands out its whole buffer");
    assert_eq!(EventLog::parse(&vec![0; EVENT_LOG_MAX + 1]), Err(EventLogError::TooLarge));
    let sha1 = good.windows(4).position(|bytes| bytes == [0x0b, 0, 32, 0]).unwrap();
    let mut without = good.clone();
    without[sha1] = 0x0c;
    assert_eq!(EventLog::parse(&without), Err(EventLogError::NoSha256));
}
