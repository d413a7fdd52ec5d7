//! Lines of an input that nobody vouches for: bounded in memory, numbered, each one good or bad by itself.

use std::io::{self, BufRead, Read};

use serde::de::DeserializeOwned;

use crate::json;

/// Why a line cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Longer than the bound; its rest is passed over.
    #[error("the line is longer than {0} bytes")]
    TooLong(usize),
    /// Bytes that are no text.
    #[error("the line is not UTF-8 (at byte {0})")]
    NotText(usize),
    /// Not JSON, or not with these fields.
    #[error("{0}")]
    Json(String),
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1, blank ones included.
    pub number: u64,
    /// Its bytes in the input, the line end included.
    pub bytes: u64,
    /// Without its line end.
    pub text: Result<String, LineError>,
}

impl Line {
    /// Reads it as one JSON object.
    pub fn object<T: DeserializeOwned>(&self) -> Result<T, LineError> {
        let text = self.text.as_deref().map_err(Clone::clone)?;
        json::object(text).map_err(LineError::Json)
    }
}

/// Reads lines of at most `max_bytes`. Blank ones are passed over.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    max_bytes: usize,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// From `input`.
    pub fn new(input: R, max_bytes: usize) -> Self {
        Self { input, max_bytes, number: 0 }
    }

    /// The next line that is not blank, or None at the end.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        loop {
            let mut line = Vec::new();
            // Two more than the bound: a line end may follow a line that just fits.
            let limit = self.max_bytes as u64 + 2;
            let mut bytes = self.input.by_ref().take(limit).read_until(b'\n', &mut line)? as u64;
            if bytes == 0 {
                return Ok(None);
            }
            self.number += 1;
            if line.last() != Some(&b'\n') && bytes == limit {
                bytes += self.input.skip_until(b'\n')? as u64;
            }
            while matches!(line.last(), Some(b'\n' | b'\r')) {
                line.pop();
            }
            if line.iter().all(u8::is_ascii_whitespace) && line.len() <= self.max_bytes {
                continue;
            }
            let text = if line.len() > self.max_bytes {
                Err(LineError::TooLong(self.max_bytes))
            } else {
                String::from_utf8(line).map_err(|e| LineError::NotText(e.utf8_error().valid_up_to() + 1))
            };
            return Ok(Some(Line { number: self.number, bytes, text }));
        }
    }

    /// Where it reads from.
    pub fn input(&self) -> &R {
        &self.input
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8]) -> Vec<(u64, Result<String, LineError>)> {
        let mut lines = Lines::new(input, 5);
        std::iter::from_fn(|| lines.next_line().unwrap()).map(|line| (line.number, line.text)).collect()
    }

    #[test]
    fn lines_are_numbered_bounded_and_checked_one_by_one() {
        assert_eq!(
            all(b"12345\r\n\n123456\n1234567890123\n\xff\xfe\nlast"),
            [
                (1, Ok("12345".to_owned())),
                (3, Err(LineError::TooLong(5))),
                (4, Err(LineError::TooLong(5))),
                (5, Err(LineError::NotText(1))),
                (6, Ok("last".to_owned())),
            ]
        );
        assert_eq!(all(b""), []);
    }
}
