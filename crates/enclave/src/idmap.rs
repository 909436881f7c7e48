//! The id maps of an enclave's user namespace: every user is itself.
//!
//! Root maps all ids that it has itself, so that programs which change their user work as they do
//! natively. An ordinary user can only map its own.

use std::fs;
use std::io;

/// Writes the maps of process `pid`, which has just made its namespace.
pub(crate) fn write(pid: u32) -> io::Result<()> {
    let user = rustix::process::geteuid();
    let group = rustix::process::getegid();
    let proc = format!("/proc/{pid}");
    if has_setid()? {
        fs::write(format!("{proc}/uid_map"), identity("/proc/self/uid_map")?)?;
        return fs::write(format!("{proc}/gid_map"), identity("/proc/self/gid_map")?);
    }
    // An ordinary user may map its group only after giving up setgroups(2).
    fs::write(format!("{proc}/setgroups"), "deny")?;
    fs::write(format!("{proc}/uid_map"), format!("{0} {0} 1\n", user.as_raw()))?;
    fs::write(format!("{proc}/gid_map"), format!("{0} {0} 1\n", group.as_raw()))
}

/// Whether this process may write any map.
fn has_setid() -> io::Result<bool> {
    use rustix::thread::CapabilitySet;
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
    Ok(rustix::thread::capabilities(None)?.effective.contains(needed))
}

/// A map of every id that this process's own map knows, each to itself.
fn identity(own: &str) -> io::Result<String> {
    let mut out = String::new();
    for line in fs::read_to_string(own)?.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some(inside), Some(_), Some(count)) = (words.next(), words.next(), words.next()) {
            out.push_str(&format!("{inside} {inside} {count}\n"));
        }
    }
    Ok(out)
}
