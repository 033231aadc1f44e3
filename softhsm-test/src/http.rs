//! As much HTTP/1.1 as a test needs: one request, one answer, one connection, over any stream.

use std::io::{BufRead as _, BufReader, Error, Read, Result, Write};

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// GET, POST, …
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Header lines beyond those that any request has.
    pub headers: &'a [(&'a str, &'a str)],
    /// JSON; empty for none.
    pub body: &'a str,
}

impl Ask<'_> {
    /// Sends it and reads as much as the answer announces, without waiting for the other side to close.
    ///
    /// # Errors
    /// When the stream breaks or carries something else.
    pub fn over(&self, mut stream: impl Read + Write) -> Result<Answer> {
        let Self { method, path, headers, body } = self;
        let length = body.len();
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n");
        if !body.is_empty() {
            request.push_str("Content-Type: application/json\r\n");
        }
        for (name, value) in *headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{request}\r\n{body}").as_bytes())?;
        read(stream)
    }
}

fn read(stream: impl Read) -> Result<Answer> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| Error::other(format!("no HTTP answer: `{line}`")))?;
    let (mut length, mut chunked) = (None, false);
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse::<u64>().map_err(Error::other)?);
        }
        chunked |= name.eq_ignore_ascii_case("transfer-encoding");
    }
    let mut body = String::new();
    if chunked {
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16).map_err(Error::other)?;
            reader.by_ref().take(size).read_to_string(&mut body)?;
            reader.read_line(&mut line)?;
            if size == 0 {
                break;
            }
        }
    } else {
        reader.take(length.unwrap_or(0)).read_to_string(&mut body)?;
    }
    Ok(Answer { status, body })
}
