//! The services of an installation: their fixed specs, and how their enclaves are wired.
//!
//! A service is this very binary, run as the program of an enclave of its own. Its spec is made
//! here and nowhere else, and what stands behind its volumes and ports is not measured, so its
//! measurement depends on nothing but the code.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use casemate_enclave::Program;
use casemate_spec::spec::{Connect, Enclave, Listen, Spec, Tls, Volume, VolumeKind};

use crate::args::Service;
use crate::failure::{self, Failure};
use crate::installation::service_name;

/// Where a service finds its own binary inside its enclave.
pub const PROGRAM: &str = "/usr/bin/casemate";

/// Where a service finds its data inside its enclave.
pub const DATA: &str = "/data";

/// Where the builder finds the repository.
pub const REPOSITORY: &str = "/repository";

/// Where the builder finds what it needs of the host's root file system.
pub const HOST: &str = "/host";

/// Where the builder has memory of its own.
pub const MEMORY: &str = "/tmp";

/// Sub-command of `service` as which the build starts its helper processes.
pub const BUILD_HELPER: &str = "build-helper";

/// Name and port at which broker, signer and builder find the log inside their enclaves.
pub const LEDGER_INSIDE: (&str, u16) = ("ledger", 7001);

/// Port that a service's listening socket has inside its enclave; the host's may differ.
const INSIDE_PORT: u16 = 7000;

/// What of the host's root file system a toolchain needs: programs, the package database that
/// vouches for them, and the links that choose among alternatives.
const HOST_PARTS: [&str; 3] = ["/usr", "/var/lib/dpkg", "/etc/alternatives"];

/// The program of a service whose data lies in the directory `data`.
///
/// # Errors
/// If this binary's own path is unknown.
pub fn program(service: Service, data: &Path) -> Result<Program, Failure> {
    let exe = std::env::current_exe().map_err(|e| failure::io("this program's path", &e))?;
    let command = [exe.display().to_string(), "service".into(), service_name(service).to_owned()];
    let mut program = Program::new(spec(service, data), command);
    program.place = Some(PROGRAM.into());
    program.observer = service == Service::Builder;
    Ok(program)
}

/// The builder's program: `repository` is the git directory, `data` receives what it makes.
///
/// # Errors
/// As [`program`].
pub fn builder(repository: &Path, data: &Path) -> Result<Program, Failure> {
    let mut program = program(Service::Builder, data)?;
    for volume in program.spec.volumes.iter_mut().filter(|v| v.path == REPOSITORY) {
        volume.source = Some(repository.display().to_string());
    }
    Ok(program)
}

fn spec(service: Service, data: &Path) -> Spec {
    let mut spec = Spec {
        enclave: Enclave {
            env: BTreeMap::from([("HOME".into(), "/tmp".into())]),
            attestation: true,
            ..Enclave::default()
        },
        volumes: vec![shared(DATA, &data.display().to_string(), false)],
        ..Spec::minimal()
    };
    if service == Service::Builder {
        spec.volumes.push(shared(REPOSITORY, "/", true));
        spec.volumes.extend(HOST_PARTS.map(|part| shared(&format!("{HOST}{part}"), part, true)));
    } else {
        spec.listen.push(Listen {
            port: INSIDE_PORT,
            address: None,
            tls: Tls::None,
            socket_activation: true,
        });
    }
    if service != Service::Ledger {
        let (host, port) = LEDGER_INSIDE;
        spec.connect.push(Connect { host: host.into(), port, address: None, tls: Tls::None });
    }
    spec
}

fn shared(path: &str, source: &str, read_only: bool) -> Volume {
    Volume {
        path: path.into(),
        kind: VolumeKind::Untrusted,
        source: Some(source.into()),
        read_only,
    }
}

/// The listening socket of a service, as its enclave is handed it.
pub fn listeners(listener: TcpListener) -> BTreeMap<u16, TcpListener> {
    BTreeMap::from([(INSIDE_PORT, listener)])
}

/// Where the log really is; nowhere during genesis, when nothing is logged yet.
pub fn dial(ledger: Option<SocketAddr>) -> BTreeMap<String, String> {
    let (host, port) = LEDGER_INSIDE;
    let address = ledger.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
    BTreeMap::from([(format!("{host}:{port}"), address.to_string())])
}

/// A listening socket on a free loopback port.
///
/// # Errors
/// If there is none.
pub fn free_port() -> Result<TcpListener, Failure> {
    port(0)
}

/// A listening socket on this loopback port.
///
/// # Errors
/// If it is taken.
pub fn port(port: u16) -> Result<TcpListener, Failure> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .map_err(|e| failure::io(&format!("loopback port {port}"), &e))
}
