//! Who wrote the source, what the build read, what came out.
