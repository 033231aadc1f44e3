//! A map of keys and values: each key once, each length in its shortest form, each known field in its shape.

use postern_protocol::refusal::{Refusal, RefusalCode};

use super::{
    super::{
        bytes::{Bytes, BytesFault},
        refuse,
    },
    fields::{self, Shape},
};

/// Most fields in one map. Far more than any script needs, and few enough that looking for duplicates stays small.
const FIELDS_MAX: usize = 4_096;

/// Whose map it is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Global,
    Input(usize),
    Output(usize),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Global => f.write_str("the global map"),
            Self::Input(number) => write!(f, "input {number}'s map"),
            Self::Output(number) => write!(f, "output {number}'s map"),
        }
    }
}

/// The bytes of a map that was read and found well-formed, without its separator.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Map<'a>(&'a [u8]);

impl<'a> Map<'a> {
    /// Reads up to and with the separator. `keys` is only there to be used again.
    pub(super) fn read(from: &mut Bytes<'a>, place: Place, keys: &mut Vec<&'a [u8]>) -> Result<Self, Refusal> {
        let malformed = |fault: BytesFault| Refusal::new(RefusalCode::PsbtMalformed, format!("{place}: {fault}"));
        keys.clear();
        let start = *from;
        let mut end = start;
        while let Some((key, value)) = next_pair(from).map_err(malformed)? {
            end = *from;
            if keys.len() >= FIELDS_MAX {
                return refuse(RefusalCode::PsbtMalformed, format!("{place} has more than {FIELDS_MAX} fields"));
            }
            keys.push(key);
            let mut key_data = Bytes(key);
            let kind = key_data.compact_size().map_err(malformed)?;
            match fields::shape(place, kind, key_data.0, value) {
                Shape::Good => {}
                Shape::OtherVersion => {
                    return refuse(
                        RefusalCode::PsbtVersion,
                        format!(
                            "{place} has field {kind:#04x}, which does not belong in a PSBT of version 0; convert the PSBT to version 0"
                        ),
                    );
                }
                Shape::Bad => {
                    return refuse(
                        RefusalCode::PsbtMalformed,
                        format!("{place}: field {kind:#04x} is not in the form that BIPs 174, 371 and 373 give it"),
                    );
                }
            }
        }
        keys.sort_unstable();
        if let Some(twice) = keys.array_windows().find_map(|[a, b]| (a == b).then_some(*a)) {
            let shown = twice.get(..twice.len().min(40)).unwrap_or(twice);
            return refuse(RefusalCode::PsbtDuplicateKey, format!("{place} has the key {} twice", hex::encode(shown)));
        }
        Ok(Self(end.since(start)))
    }

    /// Kind, key data and value of each field.
    pub(super) fn fields(self) -> impl Iterator<Item = (u64, &'a [u8], &'a [u8])> {
        let mut rest = Bytes(self.0);
        std::iter::from_fn(move || {
            let (key, value) = next_pair(&mut rest).ok()??;
            let mut key = Bytes(key);
            let kind = key.compact_size().ok()?;
            Some((kind, key.0, value))
        })
    }

    /// Key data and value of the fields of one kind.
    pub(super) fn of(self, kind: u64) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.fields().filter_map(move |(k, key, value)| (k == kind).then_some((key, value)))
    }
}

/// A key (type and data) and its value.
type Pair<'a> = (&'a [u8], &'a [u8]);

/// None at the separator.
fn next_pair<'a>(from: &mut Bytes<'a>) -> Result<Option<Pair<'a>>, BytesFault> {
    let key = from.sized()?;
    if key.is_empty() {
        return Ok(None);
    }
    Ok(Some((key, from.sized()?)))
}
