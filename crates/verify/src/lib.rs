//! Release bundle, trust file and artifact in, verdict with the whole chain out, offline.
