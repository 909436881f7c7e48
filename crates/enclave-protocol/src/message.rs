//! Messages after the launch, and refusals that cross the wall with their code intact.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use casemate_spec::workload::Workload;
use casemate_spec::{Coded, Kind, Sha384};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::launch::LaunchConfig;

/// From the starting half to the agent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum ToAgent {
    /// Starts the enclave; see [`LaunchConfig`] for the descriptors beside it.
    Launch {
        /// What to start.
        config: Box<LaunchConfig>,
    },
    /// The user and group id maps are written.
    IdsMapped,
    /// The simulated TEE serves the tree.
    TeeReady,
    /// The terminal's size and modes are set.
    TerminalReady,
    /// Deliver a signal to the program.
    Signal {
        /// Its number on this machine.
        number: i32,
    },
}

/// From the agent to the starting half.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum FromAgent {
    /// The agent has its user namespace: write the id maps, answer [`ToAgent::IdsMapped`].
    MapIds,
    /// Beside it: a directory for the simulated TEE to serve. Answer [`ToAgent::TeeReady`].
    TeeTree,
    /// Beside it: the terminal's master side. Answer [`ToAgent::TerminalReady`].
    Terminal,
    /// Beside it: a socket for one [`Reply`]. An HTTP POST to a service, JSON both ways.
    Call {
        /// Which service (`broker`).
        service: String,
        /// The path of the request.
        path: String,
        /// The JSON body.
        body: String,
    },
    /// Beside it: a socket for one [`Reply`]. A connection to a declared peer.
    Dial {
        /// Index into the spec's `connect`.
        peer: usize,
    },
    /// The program runs.
    Started {
        /// What was measured.
        workload: Workload,
        /// Its measurement.
        measurement: Sha384,
        /// Protections that this kernel does not offer, one sentence each.
        notices: Vec<String>,
    },
    /// The evidence that [`LaunchConfig::evidence_only`] asked for.
    Evidence {
        /// Record JSON.
        record: String,
    },
    /// The program ended.
    Exited {
        /// How.
        exit: Exit,
    },
    /// The enclave ends without having run the program, or because it must not go on.
    Failed {
        /// Why.
        refusal: Refusal,
    },
}

/// Answer to one [`FromAgent::Call`] or [`FromAgent::Dial`], on its own socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Reply {
    /// The response's body, whatever its HTTP status.
    Body {
        /// JSON.
        body: String,
    },
    /// Beside it: the connected socket.
    Connected,
    /// No response.
    Failed {
        /// Why, in the transport's words.
        message: String,
    },
}

/// What the agent found this kernel to allow; `None` where all is well, else what it says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Newest Landlock version that is wholly there; 0 without Landlock.
    pub landlock_abi: i32,
    /// Whether `memfd_secret(2)` works.
    pub memfd_secret: bool,
    /// Why fanotify permission events do not work.
    pub fanotify: Option<String>,
    /// Why the seccomp filter can not be installed.
    pub seccomp: Option<String>,
    /// Why a user namespace with all others can not be made.
    pub namespaces: Option<String>,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// It returned this status.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
}

impl Exit {
    /// The status a shell reports: the code, or 128 plus the signal.
    pub const fn shell_status(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// A refusal as it crosses the wall: code, text and fix as they were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error("{message}")]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// What was expected, found and where.
    pub message: String,
    /// What it means: the exit status of [`Kind`].
    pub kind: u8,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Refusal {
    /// The refusal that `error` is.
    pub fn of(error: &dyn Coded) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.ends_with(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Self {
            code: Code(error.code()),
            message,
            kind: error.kind().exit_status(),
            fix: error.fix(),
        }
    }
}

impl Coded for Refusal {
    fn code(&self) -> &'static str {
        self.code.0
    }
    fn kind(&self) -> Kind {
        match self.kind {
            2 => Kind::Usage,
            3 => Kind::Environment,
            _ => Kind::Refused,
        }
    }
    fn fix(&self) -> Option<String> {
        self.fix.clone()
    }
}

/// A stable code, `CM-AREA-0000`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(&'static str);

impl Code {
    /// How many different codes are taken from outside in the life of a process.
    const MAX_TAKEN: usize = 1024;

    /// The code `text` if it has the form of one.
    ///
    /// The text is kept for the life of the process, each different one once and at most
    /// a thousand of them, since codes come from untrusted services too.
    pub fn parse(text: &str) -> Option<Self> {
        static TAKEN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        let (area, number) = text.strip_prefix("CM-")?.split_once('-')?;
        let good = (2..=6).contains(&area.len())
            && area.bytes().all(|b| b.is_ascii_uppercase())
            && number.len() == 4
            && number.bytes().all(|b| b.is_ascii_digit());
        if !good {
            return None;
        }
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(code) = taken.get(text) {
            return Some(Self(code));
        }
        if taken.len() >= Self::MAX_TAKEN {
            return None;
        }
        let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
        taken.insert(kept);
        Some(Self(kept))
    }

    /// The code's text.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("expected a code like CM-AREA-0000"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_codes_and_nothing_else() {
        assert_eq!(Code::parse("CM-BROK-0001").map(Code::as_str), Some("CM-BROK-0001"));
        for bad in ["", "CM-BROK-1", "CM--0001", "XX-BROK-0001", "CM-brok-0001", "CM-BROK-00011"] {
            assert!(Code::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_refusal_keeps_code_kind_and_fix() {
        let refusal = Refusal {
            code: Code::parse("CM-BROK-0004").expect("code"),
            message: "no grant".into(),
            kind: 1,
            fix: Some("grant it".into()),
        };
        let json = serde_json::to_vec(&refusal).expect("json");
        let back: Refusal = serde_json::from_slice(&json).expect("parse");
        assert_eq!(Refusal::of(&back), refusal);
        assert_eq!(Coded::kind(&back), Kind::Refused);
    }

    #[test]
    fn a_killed_program_has_the_shell_s_status() {
        assert_eq!(Exit::Signal(9).shell_status(), 137);
        assert_eq!(Exit::Code(3).shell_status(), 3);
    }

    proptest::proptest! {
        #[test]
        fn no_json_makes_the_parsers_panic(text in ".{0,200}") {
            let _ = serde_json::from_str::<FromAgent>(&text);
            let _ = serde_json::from_str::<ToAgent>(&text);
            let _ = serde_json::from_str::<Reply>(&text);
        }
    }
}
