//! `casemate serve` and `casemate stop`: ledger, broker and signer, each in its own enclave.
//!
//! One process holds the three enclaves and, as long as it lives, a lock in `run/`. When it ends,
//! however it ends, the enclaves end with it; what they keep is durable, so the next start goes
//! on where they were.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use casemate_enclave::{Exit, Running, StreamSource, start};
use casemate_service::client::Http;
use casemate_spec::Kind;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::service::TRUST;
use crate::args::{Format, Serve, Service};
use crate::failure::{self, Failure};
use crate::installation::{Addresses, Installation, read, replace, service_name};
use crate::{output, serving, workload};

/// How long services may take to answer for the first time, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

const SERVICES: [Service; 3] = [Service::Ledger, Service::Broker, Service::Signer];

/// Runs `casemate serve`.
///
/// # Errors
/// If a service can not start; then none is left running.
pub fn run(installation: &Installation, format: Format, args: &Serve) -> Result<(), Failure> {
    if args.detach {
        return detach(installation, format, args);
    }
    let lock = lock(installation)?;
    let signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|e| failure::io("signals", &e))?;
    let (addresses, services) = start_all(installation, args)?;
    let bytes = serde_json::to_vec(&addresses)
        .map_err(|e| Failure::new("CM-CLI-0120", Kind::Environment, e.to_string()))?;
    replace(&installation.run_dir().join("serve.json"), &bytes)?;
    report(format, &addresses, false);
    let result = supervise(services, signals);
    let _ = fs::remove_file(installation.run_dir().join("serve.json"));
    drop(lock);
    result
}

/// Runs `casemate stop`.
///
/// # Errors
/// If the services do not end.
pub fn stop(installation: &Installation, format: Format) -> Result<(), Failure> {
    let say = |stopped: bool| match format {
        Format::Json => output::json(&serde_json::json!({ "stopped": stopped })),
        Format::Text if stopped => output::line("stopped"),
        Format::Text => output::line("the services do not run"),
    };
    if !installation.is_serving() {
        say(false);
        return Ok(());
    }
    // Whoever holds the lock wrote its number into it.
    let text = fs::read_to_string(installation.run_dir().join("lock")).unwrap_or_default();
    let pid = text.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| {
        let text = "the services are just starting or ending";
        Failure::new("CM-CLI-0121", Kind::Environment, text).fix("try again in a moment")
    })?;
    for (signal, patience) in [(Signal::TERM, PATIENCE), (Signal::KILL, Duration::from_secs(5))] {
        if let Err(e) = kill_process(pid, signal) {
            return Err(failure::io(&format!("process {}", pid.as_raw_nonzero()), &e.into()));
        }
        let started = Instant::now();
        while started.elapsed() < patience {
            if !installation.is_serving() {
                say(true);
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Err(Failure::new(
        "CM-CLI-0122",
        Kind::Environment,
        format!("process {} does not end", pid.as_raw_nonzero()),
    ))
}

/// Takes the installation's lock, held as long as the file is open.
fn lock(installation: &Installation) -> Result<File, Failure> {
    let path = installation.run_dir().join("lock");
    let io = |e: std::io::Error| failure::io(&path.display().to_string(), &e);
    fs::create_dir_all(installation.run_dir()).map_err(io)?;
    let mut file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    // A command that looks whether services run holds the lock for an instant.
    let started = Instant::now();
    while file.try_lock().is_err() {
        if started.elapsed() > Duration::from_secs(3) {
            let text = "the services of this installation run already";
            return Err(
                Failure::new("CM-CLI-0123", Kind::Environment, text).fix("casemate stop ends them")
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // What a killed predecessor said of itself is no longer so.
    let _ = fs::remove_file(installation.run_dir().join("serve.json"));
    file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(io)?;
    Ok(file)
}

fn start_all(
    installation: &Installation,
    args: &Serve,
) -> Result<(Addresses, Vec<(Service, Running)>), Failure> {
    let trust = read(&installation.trust_path())?;
    installation.trust()?;
    let mut listeners = Vec::new();
    for (service, offset) in SERVICES.into_iter().zip(0..) {
        let listener = match args.port {
            None => serving::free_port()?,
            Some(port) => serving::port(port.checked_add(offset).ok_or_else(|| {
                failure::usage(format!("--port {port}: three ports must follow"))
            })?)?,
        };
        listeners.push((service, listener));
    }
    let at = |wanted: Service| -> Result<SocketAddr, Failure> {
        listeners
            .iter()
            .find(|(service, _)| *service == wanted)
            .and_then(|(_, listener)| listener.local_addr().ok())
            .ok_or_else(|| {
                Failure::new("CM-CLI-0124", Kind::Environment, "a socket has no address")
            })
    };
    let addresses = Addresses {
        pid: std::process::id(),
        ledger: at(Service::Ledger)?,
        broker: at(Service::Broker)?,
        signer: at(Service::Signer)?,
    };
    let mut running = Vec::new();
    for (service, listener) in listeners {
        let service_running = start_one(installation, service, listener, &addresses, &trust)?;
        running.push((service, service_running));
        await_answer(service, &addresses, &mut running)?;
    }
    Ok((addresses, running))
}

fn start_one(
    installation: &Installation,
    service: Service,
    listener: TcpListener,
    addresses: &Addresses,
    trust: &[u8],
) -> Result<Running, Failure> {
    let data = installation.data_dir(service);
    replace(&data.join(TRUST), trust)?;
    let program = serving::program(service, &data)?;
    let mut options = workload::options(Some(installation), program)?;
    options.streams = [StreamSource::Null, StreamSource::Null, StreamSource::Inherit];
    options.listeners = serving::listeners(listener);
    if service != Service::Ledger {
        options.dial = serving::dial(Some(addresses.ledger));
    }
    Ok(start(options)?)
}

/// Waits until the service that started last answers.
fn await_answer(
    service: Service,
    addresses: &Addresses,
    running: &mut Vec<(Service, Running)>,
) -> Result<(), Failure> {
    let http = Http::new(&addresses.url(service));
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if running.last().is_some_and(|(_, last)| last.is_finished())
            && let Some((_, last)) = running.pop()
        {
            return Err(ended(service, last.wait()?));
        }
        if http.get("/healthz").is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(Failure::new(
        "CM-CLI-0125",
        Kind::Environment,
        format!("the {} does not answer after {} s", service_name(service), PATIENCE.as_secs()),
    ))
}

fn ended(service: Service, exit: Exit) -> Failure {
    Failure::new(
        "CM-CLI-0126",
        Kind::Environment,
        format!("the {} ended with status {}", service_name(service), exit.shell_status()),
    )
    .fix("its reason is above, or in run/serve.log if it was detached")
}

/// Watches the services until one ends or this process is told to stop, then ends all.
fn supervise(
    mut services: Vec<(Service, Running)>,
    mut signals: signal_hook::iterator::Signals,
) -> Result<(), Failure> {
    let mut result = Ok(());
    loop {
        if signals.pending().next().is_some() {
            break;
        }
        if let Some(at) = services.iter().position(|(_, running)| running.is_finished()) {
            let (service, running) = services.swap_remove(at);
            result = Err(ended(service, running.wait()?));
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // The ledger last: the others may still log something as they end.
    for (_, running) in services.iter().rev() {
        let _ = running.signal(SIGTERM);
    }
    for (_, running) in services.into_iter().rev() {
        let _ = running.wait();
    }
    result
}

/// Whether the process behind `addresses` lives and each of its services answers.
fn answers(addresses: &Addresses) -> bool {
    Path::new("/proc").join(addresses.pid.to_string()).join("exe").read_link().is_ok()
        && SERVICES.into_iter().all(|s| Http::new(&addresses.url(s)).get("/healthz").is_ok())
}

/// Starts the services in a process of their own and waits until they answer.
fn detach(installation: &Installation, format: Format, args: &Serve) -> Result<(), Failure> {
    // Services that were just killed may hold the lock for an instant; they no longer answer.
    if let Ok(addresses) = installation.addresses()
        && answers(&addresses)
    {
        report(format, &addresses, true);
        return Ok(());
    }
    let log_path = installation.run_dir().join("serve.log");
    let shown = log_path.display().to_string();
    let log = File::create(&log_path).map_err(|e| failure::io(&shown, &e))?;
    let errors = log.try_clone().map_err(|e| failure::io(&shown, &e))?;
    let exe = std::env::current_exe().map_err(|e| failure::io("this program's path", &e))?;
    let mut command = Command::new(exe);
    command.arg("--dir").arg(installation.path()).arg("serve");
    if let Some(port) = args.port {
        command.args(["--port", &port.to_string()]);
    }
    command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
    let mut child = command.spawn().map_err(|e| failure::io("starting the services", &e))?;
    let started = Instant::now();
    while started.elapsed() < PATIENCE * 3 {
        if let Ok(addresses) = installation.addresses()
            && addresses.pid == child.id()
        {
            report(format, &addresses, false);
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            let text = fs::read_to_string(&log_path).unwrap_or_default();
            return Err(Failure::new(
                "CM-CLI-0127",
                Kind::Environment,
                format!("the services ended with {status}: {}", text.trim_end()),
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    Err(Failure::new("CM-CLI-0128", Kind::Environment, "the services do not answer")
        .fix(format!("see {}", Path::new(&shown).display())))
}

fn report(format: Format, addresses: &Addresses, again: bool) {
    if format == Format::Json {
        output::json(addresses);
        return;
    }
    if again {
        output::line("the services run already");
    }
    for service in SERVICES {
        output::field(service_name(service), &addresses.url(service));
    }
    output::line("  each in an enclave of a SIMULATED TEE");
}
