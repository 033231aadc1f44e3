//! PSBT files: binary or base64 (BIP 174), read with a cap and written in the form that they came in.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use postern_protocol::frame::FRAME_MAX;

/// What a binary PSBT begins with.
const MAGIC: &[u8] = b"psbt\xff";
/// The same in base64.
const MAGIC_BASE64: &[u8] = b"cHNidP8";

/// How a PSBT is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Binary,
    Base64,
}

/// A PSBT's bytes, not looked into.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PsbtFile {
    pub(super) bytes: Vec<u8>,
    pub(super) form: Form,
}

/// Reads a file; `-` is standard input.
pub(super) fn read(path: &Path) -> Result<PsbtFile> {
    let name = path.display();
    let mut raw = Vec::new();
    // Base64 is a third longer, and may have line breaks.
    let cap = FRAME_MAX.saturating_mul(3) / 2;
    let limit = u64::try_from(cap).unwrap_or(u64::MAX).saturating_add(1);
    let read = if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut raw)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut raw))
    };
    read.with_context(|| format!("{name} cannot be read"))?;
    if raw.len() > cap {
        bail!("{name} is too large to be a PSBT that a signer takes");
    }
    parse(raw).with_context(|| name.to_string())
}

fn parse(raw: Vec<u8>) -> Result<PsbtFile> {
    if raw.starts_with(MAGIC) {
        return Ok(PsbtFile { bytes: raw, form: Form::Binary });
    }
    let text: Vec<u8> = raw.into_iter().filter(|b| !b.is_ascii_whitespace()).collect();
    if !text.starts_with(MAGIC_BASE64) {
        bail!("not a PSBT: it begins neither as a binary one (psbt\\xff) nor as one in base64 (cHNidP8…)");
    }
    let bytes = STANDARD.decode(text).context("not base64 to its end")?;
    Ok(PsbtFile { bytes, form: Form::Base64 })
}

/// Writes a PSBT to a file that appears whole or not at all; without a path, as base64 to standard output.
pub(super) fn write(path: Option<&Path>, form: Form, bytes: &[u8]) -> Result<()> {
    let Some(path) = path else {
        say!("{}", STANDARD.encode(bytes));
        return Ok(());
    };
    match form {
        Form::Binary => write_whole(path, bytes),
        Form::Base64 => write_whole(path, format!("{}\n", STANDARD.encode(bytes)).as_bytes()),
    }
}

/// Writes a file under another name first.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let draft = path.with_file_name(name);
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_anything_else_is_refused() {
        let binary = b"psbt\xff\x01\x02".to_vec();
        let wrapped = format!("{}\n", STANDARD.encode(&binary)).into_bytes();
        assert_eq!(parse(binary.clone()).unwrap(), PsbtFile { bytes: binary.clone(), form: Form::Binary });
        assert_eq!(parse(wrapped).unwrap(), PsbtFile { bytes: binary, form: Form::Base64 });
        for wrong in [&b""[..], b"0200000001", b"cHNidP8!!", b"psbt"] {
            assert!(parse(wrong.to_vec()).is_err());
        }
    }

    #[test]
    fn a_file_is_written_in_the_form_that_it_came_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        for form in [Form::Binary, Form::Base64] {
            write(Some(&path), form, b"psbt\xff\x00").unwrap();
            assert_eq!(read(&path).unwrap(), PsbtFile { bytes: b"psbt\xff\x00".to_vec(), form });
        }
        assert!(read(Path::new("/dev/zero")).unwrap_err().to_string().contains("too large"));
    }
}
