//! Length-prefixed JSON with file descriptors over a Unix stream socket.
//!
//! A frame is a header of two 32-bit big-endian numbers, the body's length and how many
//! descriptors travel with the header, then the body.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use casemate_spec::{Coded, Kind};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Largest body, in bytes: room for the plan of a root with some hundred thousand files.
pub const MAX_BODY: usize = 256 << 20;

/// Most descriptors in one frame.
pub const MAX_FDS: usize = 64;

const HEADER: usize = 8;

/// A channel that no longer works.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The socket fails.
    #[error("the channel between the two halves of the enclave broke: {0}")]
    Io(#[from] io::Error),
    /// The other side sends what this version does not understand.
    #[error("the other half of the enclave sent no message of this version: {0}")]
    Message(String),
}

impl Coded for ChannelError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io(_) => "CM-ENCL-0001",
            Self::Message(_) => "CM-ENCL-0002",
        }
    }
    fn kind(&self) -> Kind {
        Kind::Environment
    }
}

/// One end of the channel.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
    /// Largest body that is received, in bytes.
    limit: usize,
}

impl Channel {
    /// The two connected ends of a new channel.
    ///
    /// # Errors
    /// If the system has no more descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = UnixStream::pair()?;
        Ok((Self::new(a), Self::new(b)))
    }

    /// A channel over a connected Unix stream socket.
    pub const fn new(socket: UnixStream) -> Self {
        Self { socket, limit: MAX_BODY }
    }

    /// The same, receiving bodies of at most `limit` bytes.
    pub const fn limited(socket: UnixStream, limit: usize) -> Self {
        Self { socket, limit }
    }

    /// Another handle of the same end.
    ///
    /// # Errors
    /// If the system has no more descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, limit: self.limit })
    }

    /// Sends `message`, and `fds` with it. Not to be called by two threads at once.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn send<T: Serialize>(
        &self,
        message: &T,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        // A body may hold a sealing key: it is wiped on both sides.
        let body = serde_json::to_vec(message)
            .map(Zeroizing::new)
            .map_err(|e| ChannelError::Message(e.to_string()))?;
        let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_BODY);
        let (Some(length), true) = (length, fds.len() <= MAX_FDS) else {
            return Err(ChannelError::Message(format!(
                "{} bytes with {} descriptors, at most {MAX_BODY} and {MAX_FDS}",
                body.len(),
                fds.len()
            )));
        };
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&length.to_be_bytes());
        header[4..].copy_from_slice(&(fds.len() as u32).to_be_bytes());
        self.send_header(&header, fds)?;
        (&self.socket).write_all(&body)?;
        Ok(())
    }

    fn send_header(&self, header: &[u8; HEADER], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        let sent = loop {
            let parts = [IoSlice::new(header)];
            match rustix::net::sendmsg(&self.socket, &parts, &mut ancillary, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        // The descriptors went with the first byte; the rest of the header is plain bytes.
        (&self.socket).write_all(&header[sent..])
    }

    /// The next message and its descriptors; `None` when the other side has closed.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn recv<T: DeserializeOwned>(&self) -> Result<Option<(T, Vec<OwnedFd>)>, ChannelError> {
        let mut header = [0; HEADER];
        let mut fds = Vec::new();
        let mut have = 0;
        while have < HEADER {
            match self.recv_some(&mut header[have..], &mut fds)? {
                0 if have == 0 => return Ok(None),
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                n => have += n,
            }
        }
        let number = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
                as usize
        };
        let (length, count) = (number(0), number(4));
        if length > self.limit || count != fds.len() {
            return Err(ChannelError::Message(format!(
                "{length} bytes and {count} descriptors announced, {} descriptors came",
                fds.len()
            )));
        }
        // Past 64 KiB it grows with what really comes, not with what is announced.
        let mut body = Zeroizing::new(Vec::with_capacity(length.min(64 << 10) + 1));
        (&self.socket).take(length as u64).read_to_end(&mut body)?;
        if body.len() != length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let message =
            serde_json::from_slice(&body).map_err(|e| ChannelError::Message(e.to_string()))?;
        Ok(Some((message, fds)))
    }

    fn recv_some(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            let mut parts = [IoSliceMut::new(buffer)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            match rustix::net::recvmsg(&self.socket, &mut parts, &mut ancillary, flags) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                fds.extend(passed);
            }
        }
        Ok(got.bytes)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Self {
        Self::new(fd.into())
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.socket.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_messages_and_descriptors_in_order() {
        let (a, b) = Channel::pair().expect("pair");
        let (mut reader, writer) = std::io::pipe().expect("pipe");
        a.send(&"one", &[writer.as_fd()]).expect("send");
        a.send(&vec![0u8; 100], &[]).expect("send");
        drop((a, writer));
        let (text, fds) = b.recv::<String>().expect("recv").expect("a message");
        assert_eq!((text.as_str(), fds.len()), ("one", 1));
        let (bytes, none) = b.recv::<Vec<u8>>().expect("recv").expect("a message");
        assert_eq!((bytes.len(), none.len()), (100, 0));
        assert!(b.recv::<String>().expect("recv").is_none());
        let mut file = std::fs::File::from(fds.into_iter().next().expect("fd"));
        file.write_all(b"x").expect("write");
        drop(file);
        let mut got = String::new();
        reader.read_to_string(&mut got).expect("read");
        assert_eq!(got, "x");
    }

    #[test]
    fn refuses_a_body_over_its_limit() {
        let (a, b) = UnixStream::pair().expect("pair");
        let (a, b) = (Channel::new(a), Channel::limited(b, 10));
        a.send(&"12345678", &[]).expect("send");
        a.send(&"123456789", &[]).expect("send");
        assert!(b.recv::<String>().is_ok());
        assert_eq!(b.recv::<String>().expect_err("11 bytes").code(), "CM-ENCL-0002");
    }

    #[test]
    fn refuses_a_frame_cut_short() {
        let (a, b) = Channel::pair().expect("pair");
        (&a.socket).write_all(&[0, 0, 0, 9, 0, 0, 0, 0, b'"']).expect("write");
        drop(a);
        assert_eq!(b.recv::<String>().expect_err("cut").code(), "CM-ENCL-0001");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let (a, b) = Channel::pair().expect("pair");
            (&a.socket).write_all(&bytes).expect("write");
            drop(a);
            while let Ok(Some(_)) = b.recv::<serde_json::Value>() {}
        }
    }
}
