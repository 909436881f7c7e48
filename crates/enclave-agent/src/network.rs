//! The enclave's own network: loopback, nothing else.

use crate::error::AgentError;
use crate::sys;

/// Brings loopback up and names the host.
pub(crate) fn bring_up() -> Result<(), AgentError> {
    let fail = |doing: &str| {
        let doing = doing.to_owned();
        move |source| AgentError::Network { doing, source }
    };
    sys::loopback_up().map_err(fail("bringing loopback up"))?;
    rustix::system::sethostname(b"casemate").map_err(|e| fail("naming the host")(e.into()))
}
