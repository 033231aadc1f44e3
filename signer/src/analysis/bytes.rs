//! Reads what strangers wrote: never past the end, never a length that was not there.

/// Why bytes cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BytesFault {
    /// Fewer bytes are left than were announced.
    #[error("the bytes end too early")]
    Short,
    /// A compact size is longer than it need be; the same content would have a second encoding.
    #[error("a length is not in its shortest form")]
    NotShortest,
    /// More bytes are there than belong there.
    #[error("bytes are left over")]
    LeftOver,
    /// A transaction without inputs or outputs, or a witness that is announced and not there.
    #[error("this is not a transaction that can exist")]
    NoTransaction,
}

/// The bytes that are still to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was read since `earlier`, a copy of this reader.
    pub(super) fn since(&self, earlier: Bytes<'a>) -> &'a [u8] {
        let read = earlier.0.len().saturating_sub(self.0.len());
        earlier.0.get(..read).unwrap_or_default()
    }

    pub(super) fn take(&mut self, length: u64) -> Result<&'a [u8], BytesFault> {
        let length = usize::try_from(length).map_err(|_| BytesFault::Short)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(BytesFault::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], BytesFault> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(BytesFault::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, BytesFault> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, BytesFault> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, BytesFault> {
        self.array().map(u64::from_le_bytes)
    }

    /// Bitcoin's variable-length integer, in its shortest form only.
    pub(super) fn compact_size(&mut self) -> Result<u64, BytesFault> {
        let (value, least) = match self.u8()? {
            0xff => (self.u64()?, 1 << 32),
            0xfe => (u64::from(self.u32()?), 1 << 16),
            0xfd => (u64::from(self.array().map(u16::from_le_bytes)?), 0xfd),
            small => (u64::from(small), 0),
        };
        if value < least { Err(BytesFault::NotShortest) } else { Ok(value) }
    }

    /// A compact size and that many bytes.
    pub(super) fn sized(&mut self) -> Result<&'a [u8], BytesFault> {
        let length = self.compact_size()?;
        self.take(length)
    }
}
