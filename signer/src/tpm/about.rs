//! Who made a TPM, whether it is one, and how close it is to its lockout.

use std::{fmt, time::Duration};

use postern_protocol::units::format_duration_ms;
use tss_esapi::constants::PropertyTag;

use super::{Connection, TpmError};

/// Manufacturers (TCG Vendor ID Registry) whose TPMs are programs: what they remember can be copied and put back.
const VIRTUAL: [(&str, &str); 4] = [
    ("IBM", "libtpms, as in swtpm and QEMU"),
    ("MSFT", "Microsoft's simulator, as in Hyper-V"),
    ("GOOG", "Google Cloud"),
    ("VMW", "VMware"),
];

/// What a TPM says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Up to four letters of the TCG's registry.
    pub manufacturer: String,
    /// The manufacturer's own words.
    pub vendor: String,
}

impl About {
    /// Which software this TPM is, if it is known to be no chip.
    #[must_use]
    pub fn software(&self) -> Option<&'static str> {
        VIRTUAL.iter().find(|(manufacturer, _)| *manufacturer == self.manufacturer).map(|(_, software)| *software)
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.manufacturer, self.vendor)
    }
}

/// A TPM's protection against guessing auth values (TPM 2.0 Part 1 §19.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lockout {
    /// Wrong tries that are not forgiven yet.
    pub failed: u32,
    /// As many lock it.
    pub max: u32,
    /// One is forgiven each so many seconds of running; none with 0.
    pub forgiven_every_s: u32,
}

impl Lockout {
    /// In lockout, or at the last try before it, which is left to a person.
    #[must_use]
    pub fn forbids_trying(&self) -> bool {
        self.max > 0 && self.failed.saturating_add(1) >= self.max
    }

    /// How long until there is room for a try again, at most; None when no time helps.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        let too_many = self.failed.saturating_add(2).saturating_sub(self.max);
        (self.forgiven_every_s > 0 && self.max > 1)
            .then(|| Duration::from_secs(u64::from(self.forgiven_every_s).saturating_mul(u64::from(too_many))))
    }
}

impl fmt::Display for Lockout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the TPM counts {} wrong auth values of {} that lock it, and takes none now, not even the right one; ",
            self.failed, self.max
        )?;
        match self.wait() {
            Some(wait) => {
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                let every_ms = u64::from(self.forgiven_every_s).saturating_mul(1000);
                write!(f, "it forgives one each {}: come back in {}", format_duration_ms(every_ms), format_duration_ms(wait_ms))?;
            }
            None => f.write_str("it forgives none by itself")?,
        }
        f.write_str(" (or whoever has the lockout password runs `tpm2_dictionarylockout --clear-lockout`)")
    }
}

impl Connection {
    /// What it says about itself.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn about(&mut self) -> Result<About, TpmError> {
        let mut vendor = String::new();
        for tag in [PropertyTag::VendorString1, PropertyTag::VendorString2, PropertyTag::VendorString3, PropertyTag::VendorString4] {
            vendor.push_str(&letters(self.property(tag)?));
        }
        let manufacturer = letters(self.property(PropertyTag::Manufacturer)?).trim().to_owned();
        Ok(About { manufacturer, vendor: vendor.trim().to_owned() })
    }

    /// How close it is to its lockout.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn lockout(&mut self) -> Result<Lockout, TpmError> {
        Ok(Lockout {
            failed: self.property(PropertyTag::LockoutCounter)?,
            max: self.property(PropertyTag::MaxAuthFail)?,
            forgiven_every_s: self.property(PropertyTag::LockoutInterval)?,
        })
    }

    fn property(&mut self, tag: PropertyTag) -> Result<u32, TpmError> {
        Ok(self.fresh_property(tag)?.unwrap_or(0))
    }
}

/// Printable ASCII only: it goes into logs and terminals.
fn letters(word: u32) -> String {
    word.to_be_bytes().into_iter().filter(|byte| (0x20..0x7f).contains(byte)).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lockout_says_when_to_come_back() {
        let lockout = |failed| Lockout { failed, max: 32, forgiven_every_s: 7200 };
        assert!(!lockout(30).forbids_trying());
        for (failed, hours) in [(31, 2), (32, 4)] {
            assert!(lockout(failed).forbids_trying());
            assert_eq!(lockout(failed).wait(), Some(Duration::from_secs(hours * 3600)));
            assert!(lockout(failed).to_string().contains(&format!("come back in {hours} h")), "{}", lockout(failed));
        }
        assert!(Lockout { forgiven_every_s: 0, ..lockout(32) }.to_string().contains("forgives none"));
    }
}
