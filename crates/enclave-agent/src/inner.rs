//! Process 1 inside: the order of everything.

use std::os::fd::OwnedFd;

use casemate_enclave_protocol::launch::Stream;
use casemate_enclave_protocol::message::{FromAgent, ToAgent};
use casemate_enclave_protocol::{Channel, LaunchConfig, Refusal};
use casemate_spec::spec::VolumeKind;
use casemate_spec::workload::Workload;
use rustix::process::DumpableBehavior;

use crate::error::AgentError;
use crate::evidence::Prover;
use crate::program::{Program, Streams};
use crate::relay::Outside;
use crate::{api, confine, mounts, network, program, proxy, root, secrets, supervise};

/// Everything from the first instruction inside to the program's end. Never returns: when
/// process 1 ends, the kernel ends all others.
pub(crate) fn run(
    channel: &Channel,
    config: LaunchConfig,
    fds: Vec<OwnedFd>,
    host_network: Option<OwnedFd>,
) -> ! {
    if let Err(error) = live(channel, config, fds, host_network) {
        let _ = channel.send(&FromAgent::Failed { refusal: Refusal::of(&error) }, &[]);
    }
    std::process::exit(0)
}

fn live(
    channel: &Channel,
    config: LaunchConfig,
    fds: Vec<OwnedFd>,
    host_network: Option<OwnedFd>,
) -> Result<(), AgentError> {
    // Dies with the process outside, which dies with the starting half.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(AgentError::system("tying process 1 to its parent"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(AgentError::system("keeping other processes out of the agent"))?;
    check(&config, fds.len())?;
    let (stream_fds, listeners) = split(&config, fds);

    let stage = mounts::Stage::new(&config)?;
    channel.send(&FromAgent::TeeTree, &[stage.tee_tree()])?;
    let manifest = root::build(&config.plan, stage.root())?;
    let workload = Workload {
        spec: config.spec.digest()?,
        root: manifest.digest()?,
        agent: config.agent,
        production: config.spec.production,
    };
    network::bring_up()?;
    let terminal = config.streams.contains(&Stream::Terminal);
    let mounted = stage.mount(&config, terminal)?;
    expect(channel, &ToAgent::TeeReady)?;
    let prover = Prover::new(workload.clone())?;
    if let Some(request) = &config.evidence_only {
        let record = prover.for_others(request)?;
        channel.send(&FromAgent::Evidence { record }, &[])?;
        return Ok(());
    }

    let outside = Outside::new(channel.try_clone().map_err(AgentError::system("cloning"))?);
    let secrets = secrets::fetch(&config.spec, &manifest, &prover, &outside)?;
    mounted.write_secret_files(&secrets)?;
    let peers = proxy::bind_peers(&config.spec.connect)?;
    let api = if config.spec.attestation { Some(mounted.bind_agent_socket()?) } else { None };
    mounted.seal()?;
    let streams = open_streams(channel, &config, stream_fds, mounted.terminal())?;
    let handed_over = proxy::handed_over(&config.spec.listen, &listeners);
    let (rules, notices) = confine::Rules::new(&config.spec)?;
    let child = program::start(Program {
        spec: &config.spec,
        pass_env: &config.pass_env,
        secrets: &secrets,
        streams,
        listeners: handed_over,
        host_network,
        rules,
    })?;
    drop(secrets);
    let measurement = prover.measurement();
    channel.send(&FromAgent::Started { workload, measurement, notices }, &[])?;
    if let Some(listener) = api {
        api::serve(listener, prover)?;
    }
    proxy::serve_listeners(&config.spec.listen, listeners)?;
    proxy::serve_peers(peers, outside)?;
    supervise::until_end(channel, child)
}

/// What the starting half sends must fit the spec that is measured.
fn check(config: &LaunchConfig, fds: usize) -> Result<(), AgentError> {
    let bad = |problem: String| Err(AgentError::Launch(problem));
    let spec = &config.spec;
    let listeners = if config.evidence_only.is_some() { 0 } else { spec.listen.len() };
    let wanted = config.streams.iter().filter(|s| **s == Stream::Fd).count() + listeners;
    if fds != wanted {
        return bad(format!("{fds} descriptors came, {wanted} are needed"));
    }
    if let Some(name) = config.pass_env.keys().find(|n| !spec.pass_env.contains(n)) {
        return bad(format!("variable {name:?} is not in the spec's pass_env"));
    }
    if config.volumes.len() != spec.volumes.len() {
        return bad(format!("{} volumes, expected {}", config.volumes.len(), spec.volumes.len()));
    }
    for (volume, source) in spec.volumes.iter().zip(&config.volumes) {
        if (volume.kind == VolumeKind::Untrusted) != source.is_some() {
            return bad(format!("volume {:?} and its host directory disagree", volume.path));
        }
    }
    if spec.command.first().is_none_or(|p| !p.starts_with('/')) {
        return bad("the program's path is not absolute".into());
    }
    if !spec.secrets.is_empty() && (!spec.production || spec.broker.is_none()) {
        return bad("secrets need production = true and a broker".into());
    }
    for secret in &spec.secrets {
        let below = |v: &str| secret.file.as_ref().is_some_and(|f| f.starts_with(&format!("{v}/")));
        let shared = |v: &&casemate_spec::spec::MeasuredVolume| v.kind == VolumeKind::Untrusted;
        if let Some(volume) = spec.volumes.iter().filter(shared).find(|v| below(&v.path)) {
            let (name, path) = (&secret.name, &volume.path);
            return bad(format!("secret {name:?} would be written to the host's {path:?}"));
        }
    }
    Ok(())
}

fn split(config: &LaunchConfig, mut fds: Vec<OwnedFd>) -> (Vec<OwnedFd>, Vec<OwnedFd>) {
    let streams = config.streams.iter().filter(|s| **s == Stream::Fd).count();
    let listeners = fds.split_off(streams.min(fds.len()));
    (fds, listeners)
}

fn expect(channel: &Channel, wanted: &ToAgent) -> Result<(), AgentError> {
    match channel.recv::<ToAgent>()? {
        Some((got, _)) if std::mem::discriminant(&got) == std::mem::discriminant(wanted) => Ok(()),
        Some((got, _)) => Err(AgentError::Launch(format!("expected {wanted:?}, found {got:?}"))),
        None => Err(AgentError::Launch("the starting half is gone".into())),
    }
}

fn open_streams(
    channel: &Channel,
    config: &LaunchConfig,
    fds: Vec<OwnedFd>,
    terminal: Option<&mounts::Terminal>,
) -> Result<Streams, AgentError> {
    if let Some(terminal) = terminal {
        use std::os::fd::AsFd as _;
        channel.send(&FromAgent::Terminal, &[terminal.master.as_fd()])?;
        expect(channel, &ToAgent::TerminalReady)?;
    }
    let mut fds = fds.into_iter();
    let mut open = Vec::with_capacity(3);
    for stream in config.streams {
        let fd = match (stream, terminal) {
            (Stream::Fd, _) => fds.next(),
            (Stream::Terminal, Some(terminal)) => {
                Some(terminal.slave.try_clone().map_err(AgentError::Terminal)?)
            }
            _ => None,
        };
        open.push(fd);
    }
    let controlling = match terminal {
        Some(terminal) => Some(terminal.slave.try_clone().map_err(AgentError::Terminal)?),
        None => None,
    };
    Ok(Streams { fds: open, controlling })
}
