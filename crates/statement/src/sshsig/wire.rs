//! The SSH wire format (RFC 4251, section 5).

use crate::StatementError;
use crate::key::{KeyKind, PublicKey};

/// Reads fields one after the other.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(super) fn u8(&mut self) -> Result<u8, StatementError> {
        let (&byte, rest) = self.rest.split_first().ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, StatementError> {
        let (bytes, rest) = self.rest.split_first_chunk::<4>().ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    pub(super) fn string(&mut self) -> Result<&'a [u8], StatementError> {
        let size = self.u32()? as usize;
        self.take(size)
    }

    /// The next `size` bytes.
    pub(super) fn take(&mut self, size: usize) -> Result<&'a [u8], StatementError> {
        let (bytes, rest) = self.rest.split_at_checked(size).ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Everything that is left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn text(&mut self) -> Result<&'a str, StatementError> {
        let bytes = self.string()?;
        std::str::from_utf8(bytes).map_err(|_| self.error("text is not utf-8"))
    }

    /// A positive number without leading zeros, in the one encoding that there is.
    pub(super) fn mpint(&mut self) -> Result<&'a [u8], StatementError> {
        match self.string()? {
            [0, rest @ ..] if rest.first().is_some_and(|b| b & 0x80 != 0) => Ok(rest),
            number if number.first().is_some_and(|b| *b != 0 && b & 0x80 == 0) => Ok(number),
            _ => Err(self.error("number is not positive or not in canonical form")),
        }
    }

    /// Curve name and point of an ECDSA key.
    pub(super) fn ecdsa(&mut self, kind: KeyKind) -> Result<PublicKey, StatementError> {
        let name = match kind {
            KeyKind::P256 => "nistp256",
            KeyKind::P384 => "nistp384",
            _ => "nistp521",
        };
        if self.text()? != name {
            return Err(self.error("curve does not fit the type"));
        }
        PublicKey::ec(kind, self.string()?)
    }

    pub(super) fn end(&self) -> Result<(), StatementError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(self.error(&format!("{left} bytes too many"))),
        }
    }

    fn short(&self) -> StatementError {
        self.error("is cut off")
    }

    fn error(&self, problem: &str) -> StatementError {
        StatementError::Ssh { what: self.what, problem: problem.into() }
    }
}

/// Appends a length-prefixed string. Everything written here is far below 4 GiB.
pub(super) fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Appends a positive number in its one encoding.
pub(super) fn put_mpint(out: &mut Vec<u8>, number: &[u8]) {
    let zeros = number.iter().take_while(|b| **b == 0).count();
    let number = &number[zeros..];
    match number.first() {
        Some(first) if first & 0x80 != 0 => put(out, &[&[0], number].concat()),
        _ => put(out, number),
    }
}
