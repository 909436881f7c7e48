//! What crosses between the two halves of an enclave, and between the agent and its program.
//!
//! The *starting* half is outside and untrusted; the *agent* is inside and measured. Everything
//! the first tells the second is either part of the measurement (the effective spec, the plan of
//! the root once its bytes are hashed) or carries no trust at all (file descriptors, addresses,
//! the relay). Nothing here decides anything: these are the shapes and their framing.
//!
//! - [`launch`]: the one message that starts an enclave
//! - [`plan`]: which paths the root shall have, and where their bytes come from
//! - [`message`]: all other messages, and [`message::Refusal`], an error that crosses the wall
//! - [`channel`]: length-prefixed JSON with file descriptors over a Unix socket
//! - [`net`]: the names and loopback addresses of declared peers
//! - [`agent_api`]: how a program inside asks the agent for evidence and sealing keys

#![forbid(unsafe_code)]

pub mod agent_api;
pub mod channel;
pub mod launch;
pub mod message;
pub mod net;
pub mod plan;

pub use agent_api::AgentClient;
pub use channel::{Channel, ChannelError};
pub use launch::{EvidenceRequest, LaunchConfig};
pub use message::{Code, Refusal};
pub use plan::{Content, Node, Plan};
