//! Stable codes for every refusal, and what a refusal means to a caller.

/// What a failure means, and with it the exit status of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A verdict: something was checked and refused. Exit status 1.
    Refused,
    /// The request makes no sense as given: an argument, a file's syntax. Exit status 2.
    Usage,
    /// The surroundings lack something: a device, a permission, a service. Exit status 3.
    Environment,
}

impl Kind {
    /// The exit status of the command line for this kind of failure.
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Environment => 3,
        }
    }
}

/// An error with a stable code (`CM-AREA-0000`, listed in `docs/errors.md`).
///
/// The `Display` text says what was expected, what was found and where: lower case, no full stop.
pub trait Coded: std::error::Error {
    /// The stable code. Never reused for another meaning.
    fn code(&self) -> &'static str;
    /// Whether this is a verdict, a usage error or a lack in the surroundings.
    fn kind(&self) -> Kind {
        Kind::Refused
    }
    /// What the reader can do next, if the text alone does not tell.
    fn fix(&self) -> Option<String> {
        None
    }
}
