//! In-toto statements, DSSE, SSH signatures, log entries and the release bundle.
