//! Frames on the signer's socket: four bytes of length (big endian), then that many bytes of canonical CBOR.
//! One request or one reply a frame; replies carry the request's id and may come in any order.

/// Bytes of the length prefix.
pub const PREFIX: usize = 4;
/// Largest frame that anybody accepts unless configured lower: 16 MiB holds a 500-input PSBT with large previous transactions.
pub const FRAME_MAX: usize = 16 * 1024 * 1024;

/// A frame's announced length is over the cap. Nothing after it can be trusted; the connection ends.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a frame of {announced} bytes was announced; at most {max} are accepted")]
pub struct FrameTooLarge {
    /// What the prefix said, in bytes.
    pub announced: usize,
    /// What is allowed, in bytes.
    pub max: usize,
}

/// Puts the length prefix before a body.
///
/// # Errors
/// [`FrameTooLarge`] when the body is over [`FRAME_MAX`].
pub fn wrap(body: &[u8]) -> Result<Vec<u8>, FrameTooLarge> {
    let too_large = FrameTooLarge { announced: body.len(), max: FRAME_MAX };
    if body.len() > FRAME_MAX {
        return Err(too_large);
    }
    let length = u32::try_from(body.len()).map_err(|_| too_large)?;
    let mut out = Vec::with_capacity(PREFIX.saturating_add(body.len()));
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
    Ok(out)
}

/// The body's length from its prefix, checked against a cap before anything is allocated.
///
/// # Errors
/// [`FrameTooLarge`].
pub fn body_length(prefix: [u8; PREFIX], max: usize) -> Result<usize, FrameTooLarge> {
    let announced = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if announced > max { Err(FrameTooLarge { announced, max }) } else { Ok(announced) }
}
