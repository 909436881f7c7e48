//! Names and loopback addresses of declared peers, the same on both sides.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use casemate_spec::spec::MeasuredConnect;

/// Where in the enclave's loopback peers begin. The first has 127.77.0.1.
const FIRST: u32 = u32::from_be_bytes([127, 77, 0, 1]);

/// The loopback address of each entry of `connect`: one per host name, in order of appearance.
pub fn peer_addresses(connect: &[MeasuredConnect]) -> Vec<Ipv4Addr> {
    let mut names: Vec<&str> = Vec::new();
    connect
        .iter()
        .map(|peer| {
            let at = names.iter().position(|n| *n == peer.host).unwrap_or_else(|| {
                names.push(&peer.host);
                names.len() - 1
            });
            // A spec is at most 1 MiB, far fewer peers than addresses.
            Ipv4Addr::from_bits(FIRST.saturating_add(u32::try_from(at).unwrap_or(u32::MAX)))
        })
        .collect()
}

/// The enclave's `/etc/hosts`: `localhost` and every declared peer.
pub fn hosts_file(connect: &[MeasuredConnect]) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost\n");
    let mut last = Vec::new();
    for (peer, address) in connect.iter().zip(peer_addresses(connect)) {
        if !last.contains(&address) && !is_literal(&peer.host) {
            let _ = writeln!(text, "{address} {}", peer.host);
        }
        last.push(address);
    }
    text
}

/// Whether a peer is named by its address: the agent then gives the loopback that very address.
pub fn is_literal(host: &str) -> bool {
    host.parse::<Ipv4Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use casemate_spec::spec::Tls;

    fn peer(host: &str, port: u16) -> MeasuredConnect {
        MeasuredConnect { host: host.into(), port, tls: Tls::None }
    }

    #[test]
    fn one_address_for_one_name_whatever_the_port() {
        let peers = [peer("db", 1), peer("cache", 1), peer("db", 2)];
        let at: Vec<String> = peer_addresses(&peers).iter().map(ToString::to_string).collect();
        assert_eq!(at, ["127.77.0.1", "127.77.0.2", "127.77.0.1"]);
        assert_eq!(hosts_file(&peers).matches("db").count(), 1);
    }
}
