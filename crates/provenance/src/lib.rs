//! Who wrote the source, what the build read, what came out.
//!
//! - [`source`]: a repository's history, verified object by object and signature by signature
//! - [`build`]: a build's steps, watched by the kernel, every input named

pub mod build;
pub mod source;
