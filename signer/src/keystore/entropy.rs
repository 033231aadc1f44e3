//! Where the randomness of new seeds comes from: the hardware, the kernel and, if a person likes, dice. They are mixed so that
//! one good source suffices; and a source that is visibly none stops everything.

use std::fmt;

use sha2::{Digest as _, Sha512};
use zeroize::Zeroize as _;

use super::KeystoreError;
use crate::secret::{LockedBytes, LockedMemoryError};

/// Length of a seed.
pub(super) const SEED_LEN: usize = 32;
/// Length of one draw from a source. Each source is drawn from twice.
const DRAW: usize = 32;
/// What the mixing is for.
const PURPOSE: &str = "postern/seed/2";
/// Fewest rolls of a die: 50 hold 129 bits.
pub const ROLLS_MIN: usize = 50;
/// Fewest typed characters. Nobody types more than 2 bits a character that others could not guess.
pub const TYPED_MIN: usize = 64;
const TYPED_MAX: usize = 4096;

/// What a person adds to the randomness of a new seed.
pub struct TypedEntropy {
    source: &'static str,
    bytes: LockedBytes,
}

/// Why what was typed is not taken.
#[derive(Debug, thiserror::Error)]
pub enum TypedEntropyError {
    /// It is no sequence of rolls.
    #[error("rolls of a die are digits from 1 to 6, and something else was typed")]
    NoRolls,
    /// It is too short.
    #[error("{found} of at least {ROLLS_MIN} rolls were typed; 99 hold as much randomness as a seed")]
    FewRolls {
        /// How many there are.
        found: usize,
    },
    /// It is too short or too long.
    #[error("{found} characters were typed; type {TYPED_MIN} to {TYPED_MAX}")]
    Length {
        /// How many there are.
        found: usize,
    },
    /// One character over and over.
    #[error("it is the same over and over")]
    Constant,
    /// No memory for it.
    #[error("no locked memory: {0}; raise LimitMEMLOCK (ulimit -l)")]
    Memory(#[from] LockedMemoryError),
}

impl TypedEntropy {
    /// Rolls of a six-sided die; white space between them is left out.
    ///
    /// # Errors
    /// [`TypedEntropyError`].
    pub fn dice(text: &[u8]) -> Result<Self, TypedEntropyError> {
        let mut rolls = LockedBytes::zeroed(text.len())?;
        let mut found = 0_usize;
        for (place, roll) in rolls.iter_mut().zip(text.iter().filter(|byte| !byte.is_ascii_whitespace())) {
            if !(b'1'..=b'6').contains(roll) {
                return Err(TypedEntropyError::NoRolls);
            }
            *place = *roll;
            found = found.saturating_add(1);
        }
        if found < ROLLS_MIN {
            return Err(TypedEntropyError::FewRolls { found });
        }
        let rolls = rolls.get(..found).unwrap_or_default();
        Self::new("dice", rolls)
    }

    /// Whatever a person types without thinking.
    ///
    /// # Errors
    /// [`TypedEntropyError`].
    pub fn typed(text: &[u8]) -> Result<Self, TypedEntropyError> {
        let text = text.trim_ascii();
        if !(TYPED_MIN..=TYPED_MAX).contains(&text.len()) {
            return Err(TypedEntropyError::Length { found: text.len() });
        }
        Self::new("typed", text)
    }

    fn new(source: &'static str, bytes: &[u8]) -> Result<Self, TypedEntropyError> {
        if is_constant(bytes) {
            return Err(TypedEntropyError::Constant);
        }
        Ok(Self { source, bytes: LockedBytes::copy_of(bytes)? })
    }
}

impl fmt::Debug for TypedEntropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TypedEntropy({})", self.source)
    }
}

/// Why there is no randomness.
#[derive(Debug)]
pub(super) enum EntropyError<E> {
    /// The hardware did not answer.
    Hardware(E),
    /// A source is visibly not random.
    NotRandom(String),
    /// No locked memory.
    Memory(LockedMemoryError),
}

impl<E> EntropyError<E> {
    /// For the asker; `hardware` says what a fault of the hardware means.
    pub(super) fn explain<T: From<KeystoreError>>(self, keystore: &str, hardware: impl FnOnce(E) -> T) -> T {
        match self {
            Self::Hardware(error) => hardware(error),
            Self::NotRandom(reason) => KeystoreError::Random { keystore: keystore.into(), reason }.into(),
            Self::Memory(error) => KeystoreError::Memory { reason: error.to_string() }.into(),
        }
    }
}

/// A new seed from the hardware (`draw` fills a buffer from it), the kernel, and what was typed.
pub(super) fn new_seed<E>(
    hardware: &'static str,
    draw: impl FnMut(&mut [u8]) -> Result<(), E>,
    typed: Option<&TypedEntropy>,
) -> Result<LockedBytes, EntropyError<E>> {
    let draws = draws(hardware, draw)?;
    let (from_hardware, from_kernel) = draws.split_at_checked(DRAW.saturating_mul(2)).unwrap_or_default();
    let mut sources = vec![(hardware, from_hardware), ("getrandom", from_kernel)];
    sources.extend(typed.map(|typed| (typed.source, &*typed.bytes)));
    mix(&sources).map_err(EntropyError::Memory)
}

/// The self-test: the hardware answers, and neither it nor the kernel repeats itself.
pub(super) fn prove<E>(hardware: &'static str, draw: impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<(), EntropyError<E>> {
    draws(hardware, draw).map(|_| ())
}

/// Two draws from the hardware and two from the kernel.
fn draws<E>(hardware: &'static str, mut draw: impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<LockedBytes, EntropyError<E>> {
    let mut draws = LockedBytes::zeroed(DRAW.saturating_mul(4)).map_err(EntropyError::Memory)?;
    for (number, place) in draws.chunks_exact_mut(DRAW).enumerate() {
        if number < 2 {
            draw(place).map_err(EntropyError::Hardware)?;
        } else {
            getrandom::fill(place).map_err(|error| EntropyError::NotRandom(format!("getrandom: {error}")))?;
        }
    }
    judge(hardware, &draws).map_err(EntropyError::NotRandom)?;
    Ok(draws)
}

/// What a broken generator looks like. A good one looks like that once in 2^250 draws.
fn judge(hardware: &str, draws: &[u8]) -> Result<(), String> {
    let name = |number: usize| if number < 2 { hardware } else { "getrandom" };
    let blocks: Vec<&[u8]> = draws.chunks_exact(DRAW).collect();
    for (number, block) in blocks.iter().enumerate() {
        if is_constant(block) {
            return Err(format!("{} gives the same byte over and over", name(number)));
        }
        if let Some(other) = blocks.iter().take(number).position(|other| other == block) {
            return Err(format!("{} and {} give the same bytes", name(other), name(number)));
        }
    }
    Ok(())
}

fn is_constant(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| Some(byte) == bytes.first())
}

/// A hash over all sources, each with its name and length before it: no byte of one can pass for a byte of another.
fn mix(sources: &[(&str, &[u8])]) -> Result<LockedBytes, LockedMemoryError> {
    let mut hash = Sha512::new();
    let mut add = |bytes: &[u8]| {
        hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(bytes);
    };
    add(PURPOSE.as_bytes());
    for (name, bytes) in sources {
        add(name.as_bytes());
        add(bytes);
    }
    let mut output: [u8; 64] = hash.finalize().into();
    let seed = LockedBytes::copy_of(output.first_chunk::<SEED_LEN>().unwrap_or(&[0; SEED_LEN]));
    output.zeroize();
    seed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_seed_depends_on_every_byte_of_every_source_and_on_where_it_comes_from() {
        let (hardware, kernel, dice): (Vec<u8>, Vec<u8>, &[u8]) = ((0..64).collect(), (64..128).collect(), b"123456");
        let sources = [("TPM", hardware.as_slice()), ("getrandom", &kernel), ("dice", dice)];
        let seed = mix(&sources).unwrap();
        assert_eq!(seed.len(), SEED_LEN);
        for source in 0..sources.len() {
            for place in 0..sources[source].1.len() {
                let mut bytes = sources[source].1.to_vec();
                bytes[place] ^= 1;
                let mut others = sources;
                others[source].1 = &bytes;
                assert_ne!(*mix(&others).unwrap(), *seed, "byte {place} of source {source} does not matter");
            }
        }
        assert_ne!(*mix(&sources[..2]).unwrap(), *seed);
        // What one source gives less and the next more is another seed.
        let all: Vec<u8> = (0..128).collect();
        let moved = [("TPM", &all[..63]), ("getrandom", &all[63..]), ("dice", dice)];
        assert_ne!(*mix(&moved).unwrap(), *seed);
    }

    #[test]
    fn one_good_source_suffices() {
        // All others are known to an attacker, or broken.
        let seed = |random: [u8; 32]| mix(&[("TPM", &[0; 64]), ("getrandom", &[0; 64]), ("dice", &random)]).unwrap();
        assert_ne!(*seed([1; 32]), *seed([2; 32]));
    }

    #[test]
    fn a_generator_that_repeats_itself_is_none() {
        let mut fine = 0_u8;
        let counting = |out: &mut [u8]| {
            out.iter_mut().for_each(|byte| {
                fine = fine.wrapping_mul(5).wrapping_add(1);
                *byte = fine;
            });
            Ok::<(), ()>(())
        };
        prove("TPM", counting).unwrap();
        let said = |draw: fn(&mut [u8]) -> Result<(), ()>| match prove("TPM", draw) {
            Err(EntropyError::NotRandom(reason)) => reason,
            other => format!("{other:?}"),
        };
        assert_eq!(said(|_| Ok(())), "TPM gives the same byte over and over");
        assert_eq!(
            said(|out| {
                out.fill(0xff);
                Ok(())
            }),
            "TPM gives the same byte over and over"
        );
        let repeats = said(|out| {
            out.iter_mut().zip(0..).for_each(|(byte, number)| *byte = number);
            Ok(())
        });
        assert_eq!(repeats, "TPM and TPM give the same bytes");
        assert!(matches!(prove("TPM", |_| Err(())), Err(EntropyError::Hardware(()))));
        assert!(matches!(new_seed("TPM", |_| Ok::<(), ()>(()), None), Err(EntropyError::NotRandom(_))));
        let same: Vec<u8> = (0..32).chain(40..72).chain(0..32).chain(80..112).collect();
        assert_eq!(judge("TPM", &same).unwrap_err(), "TPM and getrandom give the same bytes");
    }

    #[test]
    fn typed_entropy_has_a_form_and_a_length() {
        let rolls = "1 2 3 4 5 6\n".repeat(9);
        assert_eq!(TypedEntropy::dice(rolls.as_bytes()).unwrap().bytes.len(), 54);
        assert!(matches!(TypedEntropy::dice(b"123456"), Err(TypedEntropyError::FewRolls { found: 6 })));
        assert!(matches!(TypedEntropy::dice(&[b'7'; 60]), Err(TypedEntropyError::NoRolls)));
        assert!(matches!(TypedEntropy::dice(&[b'6'; 60]), Err(TypedEntropyError::Constant)));
        let text = "gh4iu3h gerwo8z34 fvhks 2394z fksdhj 34z98 fhdskj 3948z sdkjfh 34z";
        let typed = TypedEntropy::typed(text.as_bytes()).unwrap();
        assert_eq!(format!("{typed:?}"), "TypedEntropy(typed)");
        assert!(matches!(TypedEntropy::typed(b"short"), Err(TypedEntropyError::Length { found: 5 })));
        assert!(matches!(TypedEntropy::typed(&[b'a'; 100]), Err(TypedEntropyError::Constant)));
    }
}
