//! The caller's terminal in front of the enclave's own.
//!
//! The program has a pseudo-terminal inside, with its own session and job control. Here the
//! caller's terminal is put into raw mode and bytes are carried: what Ctrl-C means is decided by
//! the terminal inside. The caller's modes come back when this is dropped.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

/// A running terminal.
pub(crate) struct Terminal {
    outer: OwnedFd,
    before: Termios,
    master: Arc<OwnedFd>,
    stop: Arc<OwnedFd>,
    output: Option<JoinHandle<()>>,
}

impl Terminal {
    /// The caller's terminal: the first of the standard streams that is one.
    pub(crate) fn find() -> Option<OwnedFd> {
        let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        streams.into_iter().find(|fd| isatty(fd)).and_then(|fd| fd.try_clone_to_owned().ok())
    }

    /// Gives the terminal inside the size and modes of the one outside and starts carrying.
    /// `reads` and `writes` say which streams of the program are the terminal.
    pub(crate) fn start(master: OwnedFd, reads: bool, writes: bool) -> io::Result<Self> {
        let outer = Self::find().ok_or_else(|| io::Error::other("the terminal is gone"))?;
        let before = tcgetattr(&outer)?;
        tcsetattr(&master, OptionalActions::Now, &before)?;
        let master = Arc::new(master);
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let mut terminal = Self { outer, before, master, stop, output: None };
        terminal.resize();
        if reads {
            let mut raw = terminal.before.clone();
            raw.make_raw();
            tcsetattr(&terminal.outer, OptionalActions::Now, &raw)?;
            let (master, stop) = (Arc::clone(&terminal.master), Arc::clone(&terminal.stop));
            let input = terminal.outer.try_clone()?;
            std::thread::Builder::new()
                .name("terminal-in".into())
                .spawn(move || carry_input(input.as_fd(), &master, &stop))?;
        }
        if writes || reads {
            let (master, stop) = (Arc::clone(&terminal.master), Arc::clone(&terminal.stop));
            let output = terminal.outer.try_clone()?;
            let thread = std::thread::Builder::new()
                .name("terminal-out".into())
                .spawn(move || carry_output(&master, output.as_fd(), &stop))?;
            terminal.output = Some(thread);
        }
        Ok(terminal)
    }

    /// Passes the size of the terminal outside on; the program inside gets SIGWINCH.
    pub(crate) fn resize(&self) {
        if let Ok(size) = tcgetwinsize(&self.outer) {
            let _ = tcsetwinsize(&*self.master, size);
        }
    }

    /// Another handle on the master side, for resizing.
    pub(crate) fn resizer(&self) -> io::Result<impl Fn() + Send + 'static> {
        let (outer, master) = (self.outer.try_clone()?, Arc::clone(&self.master));
        Ok(move || {
            if let Ok(size) = tcgetwinsize(&outer) {
                let _ = tcsetwinsize(&*master, size);
            }
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // All processes inside have ended: the rest of the output is in the master.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(output) = self.output.take() {
            let _ = output.join();
        }
        let _ = tcsetattr(&self.outer, OptionalActions::Drain, &self.before);
    }
}

fn carry_input(input: BorrowedFd<'_>, master: &OwnedFd, stop: &OwnedFd) {
    let mut buffer = [0; 4096];
    loop {
        let mut fds =
            [PollFd::from_borrowed_fd(input, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if !fds[1].revents().is_empty() => return,
            Ok(_) => {}
        }
        match rustix::io::read(input, &mut buffer) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => return,
            // The terminal has hung up: end of input inside as well.
            Ok(0) => {
                let _ = rustix::io::write(master, &[4]);
                return;
            }
            Ok(n) => {
                if !write_all(master.as_fd(), &buffer[..n]) {
                    return;
                }
            }
        }
    }
}

/// Ends when nobody inside holds the terminal any more, or on `stop` once all is read.
fn carry_output(master: &OwnedFd, output: BorrowedFd<'_>, stop: &OwnedFd) {
    let mut buffer = [0; 16384];
    loop {
        let mut fds = [PollFd::new(master, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        let ready = fds[0].revents();
        if ready.is_empty() {
            return;
        }
        match rustix::io::read(master, &mut buffer) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            // EIO: the last one inside has closed it.
            Err(_) | Ok(0) => return,
            Ok(n) => {
                if !write_all(output, &buffer[..n]) {
                    return;
                }
            }
        }
    }
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return false,
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None);
            }
            Err(_) => return false,
        }
    }
    true
}
