//! What a command ends with when it does not succeed, and how that is shown.

use casemate_spec::{Coded, Kind};
use serde::Serialize;

use crate::args::Format;
use crate::output::{WIDTH, error_line, wrap};

/// A failure on its way to the terminal: what failed, why, what to do next.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// Stable code.
    pub code: String,
    /// What failed and why.
    pub message: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    #[serde(skip)]
    kind: Kind,
    /// Already told, as part of a result on standard output.
    #[serde(skip)]
    told: bool,
}

impl<E: Coded> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            code: error.code().into(),
            message: error.to_string(),
            fix: error.fix(),
            kind: error.kind(),
            told: false,
        }
    }
}

impl Failure {
    /// A failure of the command line's own, with a code of area `CLI`.
    pub fn new(code: &'static str, kind: Kind, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), fix: None, kind, told: false }
    }

    /// A failure that the builder reported from inside its enclave.
    pub fn inside(refused: crate::commands::service::Refused) -> Self {
        let kind = match refused.status {
            2 => Kind::Usage,
            3 => Kind::Environment,
            _ => Kind::Refused,
        };
        let crate::commands::service::Refused { code, message, fix, .. } = refused;
        Self { code, message, fix, kind, told: false }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// The same as a usage error: it was an argument that was refused.
    #[must_use]
    pub const fn into_usage(mut self) -> Self {
        self.kind = Kind::Usage;
        self
    }

    /// Says what was being done when it failed.
    #[must_use]
    pub fn during(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Marks the failure as told already, by the result on standard output.
    #[must_use]
    pub const fn silent(mut self) -> Self {
        self.told = true;
        self
    }

    /// The exit status of the process.
    pub const fn exit_status(&self) -> u8 {
        self.kind.exit_status()
    }

    /// Shows the failure on standard error (text) or standard output (JSON).
    pub fn show(&self, format: Format) {
        match format {
            _ if self.told => {}
            Format::Text => {
                let (code, message) = (&self.code, &self.message);
                let mut lines = wrap(&format!("casemate: {code}: {message}"), WIDTH - 2);
                lines.extend(
                    self.fix.iter().flat_map(|fix| wrap(&format!("fix: {fix}"), WIDTH - 2)),
                );
                for (number, line) in lines.iter().enumerate() {
                    let indent = if number == 0 { "" } else { "  " };
                    error_line(&format!("{indent}{line}"));
                }
            }
            Format::Json => crate::output::json(&serde_json::json!({ "error": self })),
        }
    }
}

/// An error of the operating system on a named file or thing.
pub fn io(what: &str, error: &std::io::Error) -> Failure {
    let kind =
        if error.kind() == std::io::ErrorKind::NotFound { Kind::Usage } else { Kind::Environment };
    Failure::new("CM-CLI-0001", kind, format!("{what}: {error}"))
}

/// An argument that makes no sense.
pub fn usage(message: impl Into<String>) -> Failure {
    Failure::new("CM-CLI-0002", Kind::Usage, message)
}
