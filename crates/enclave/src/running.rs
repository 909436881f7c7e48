//! A program that runs in an enclave.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use casemate_enclave_protocol::Channel;
use casemate_enclave_protocol::message::{Exit, FromAgent, ToAgent};
use casemate_spec::Sha384;
use casemate_spec::workload::Workload;
use casemate_tee::sim::SimHandle;
use rustix::process::{Resource, Rlimit};
use signal_hook::consts::signal::{
    SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH,
};
use signal_hook::iterator::{Handle, Signals};

use crate::dial::Outside;
use crate::error::EnclaveError;
use crate::launch::{Agent, Session, Started};
use crate::terminal::Terminal;

const FORWARDED: [i32; 7] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCONT];

/// A program that runs in an enclave. Dropping this ends everything in it.
pub struct Running {
    // In the order in which they are dropped: the enclave first, then what served it.
    agent: Agent,
    conversation: Option<JoinHandle<Result<Exit, EnclaveError>>>,
    _forwarder: Option<Forwarder>,
    _terminal: Option<Terminal>,
    _simulator: Option<SimHandle>,
    signaller: Signaller,
    started: Started,
}

/// Sends signals to a program in an enclave, from any thread, also while another waits for it.
#[derive(Debug, Clone)]
pub struct Signaller(Arc<Mutex<Channel>>);

impl Running {
    pub(crate) fn new(
        session: Session,
        started: Started,
        forward: bool,
    ) -> Result<Self, EnclaveError> {
        let Session { agent, channel, outside, terminal, simulator, .. } = session;
        let fail = |step| move |source| EnclaveError::Launch { step, source };
        let sender = channel.try_clone().map_err(fail("cloning the channel"))?;
        let signaller = Signaller(Arc::new(Mutex::new(sender)));
        let conversation = std::thread::Builder::new()
            .name("enclave".into())
            .spawn(move || converse(&channel, &outside))
            .map_err(fail("starting a thread"))?;
        let forwarder = Forwarder::start(forward, terminal.as_ref(), signaller.clone())
            .map_err(fail("taking over signals"))?;
        Ok(Self {
            agent,
            conversation: Some(conversation),
            _forwarder: forwarder,
            _terminal: terminal,
            _simulator: simulator,
            signaller,
            started,
        })
    }

    /// What the agent measured.
    pub const fn workload(&self) -> &Workload {
        &self.started.workload
    }

    /// The workload measurement.
    pub const fn measurement(&self) -> Sha384 {
        self.started.measurement
    }

    /// Protections that this machine's kernel lacks, one sentence each.
    pub fn notices(&self) -> &[String] {
        &self.started.notices
    }

    /// Process id of the agent, on the host.
    pub fn id(&self) -> u32 {
        self.agent.id()
    }

    /// Whether the program has ended; [`Self::wait`] then returns at once.
    pub fn is_finished(&self) -> bool {
        self.conversation.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// A handle that sends signals to the program.
    pub fn signaller(&self) -> Signaller {
        self.signaller.clone()
    }

    /// Sends signal `number` to the program.
    ///
    /// # Errors
    /// If the enclave has ended.
    pub fn signal(&self, number: i32) -> Result<(), EnclaveError> {
        self.signaller.signal(number)
    }

    /// Waits until the program has ended and everything it started with it.
    ///
    /// # Errors
    /// If the enclave ended for another reason.
    pub fn wait(mut self) -> Result<Exit, EnclaveError> {
        let ended = match self.conversation.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(EnclaveError::AgentDied("its conversation broke off".into())),
        };
        if ended.is_ok() {
            // Its own end means that of every process inside.
            let _ = self.agent.wait();
        }
        ended
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("agent", &self.agent.id())
            .field("measurement", &self.measurement())
            .finish_non_exhaustive()
    }
}

impl Signaller {
    /// Sends signal `number` to the program.
    ///
    /// # Errors
    /// If the enclave has ended.
    pub fn signal(&self, number: i32) -> Result<(), EnclaveError> {
        let channel = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(channel.send(&ToAgent::Signal { number }, &[])?)
    }
}

/// Ends the calling process the way the program ended: with its status, or by its signal.
pub fn end_like(exit: Exit) -> ! {
    if let Exit::Signal(number) = exit {
        // The program's core was not dumped; neither is the caller's in its name.
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        let _ = rustix::process::setrlimit(Resource::Core, none);
        let _ = signal_hook::low_level::emulate_default_handler(number);
        if let Ok(signal) = nix::sys::signal::Signal::try_from(number) {
            let _ = nix::sys::signal::raise(signal);
        }
    }
    std::process::exit(exit.shell_status())
}

/// Serves the agent until the program has ended.
fn converse(channel: &Channel, outside: &Outside) -> Result<Exit, EnclaveError> {
    loop {
        let Some((message, fds)) = channel.recv::<FromAgent>()? else {
            return Err(EnclaveError::AgentDied("it closed the channel".into()));
        };
        let mut fds = fds.into_iter();
        match (message, fds.next()) {
            (FromAgent::Call { service, path, body }, Some(reply)) => {
                outside.call(service, path, body, reply);
            }
            (FromAgent::Dial { peer }, Some(reply)) => outside.dial(peer, reply),
            (FromAgent::Exited { exit }, _) => return Ok(exit),
            (FromAgent::Failed { refusal }, _) => return Err(refusal.into()),
            _ => return Err(EnclaveError::AgentDied("a message out of turn".into())),
        }
    }
}

/// Carries the caller's signals to the program while it lives.
struct Forwarder {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    fn start(
        forward: bool,
        terminal: Option<&Terminal>,
        signaller: Signaller,
    ) -> std::io::Result<Option<Self>> {
        let mut wanted: Vec<i32> = if forward { FORWARDED.to_vec() } else { Vec::new() };
        let resize = terminal.map(Terminal::resizer).transpose()?;
        if resize.is_some() || forward {
            wanted.push(SIGWINCH);
        }
        if wanted.is_empty() {
            return Ok(None);
        }
        let mut signals = Signals::new(&wanted)?;
        let handle = signals.handle();
        let work = move || {
            for number in signals.forever() {
                match (&resize, number) {
                    (Some(resize), SIGWINCH) => resize(),
                    // An enclave that has ended needs no signal any more.
                    _ => drop(signaller.signal(number)),
                }
            }
        };
        let thread = std::thread::Builder::new().name("enclave-signals".into()).spawn(work)?;
        Ok(Some(Self { handle, thread: Some(thread) }))
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
