//! `casemate init`: an installation, with keys that its services make inside their enclaves.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use casemate_enclave::{Exit, Program, StartOptions, StreamSource, Tee, start};
use casemate_service::{Genesis, ledger};
use casemate_spec::trust::{
    AcceptedTee, BrokerTrust, LedgerTrust, ServiceTrust, Thresholds, Trust, TrustFile,
};
use casemate_spec::{Kind, Sha384};
use casemate_tee::sim::Platform;
use jiff::Timestamp;

use super::service::GENESIS;
use super::trust::to_json;
use crate::args::{Format, Init, Service};
use crate::bundles::now;
use crate::failure::{self, Failure};
use crate::installation::{DEFAULT_NAME, read, replace, service_name, sync_dir};
use crate::scratch::Scratch;
use crate::{output, people, serving};

/// Runs the command. The directory appears whole or not at all.
///
/// # Errors
/// If there is an installation already, an argument is wrong, or an enclave can not start.
pub fn run(dir: Option<&Path>, format: Format, args: &Init) -> Result<(), Failure> {
    let dir = dir.map_or_else(|| PathBuf::from(DEFAULT_NAME), Path::to_owned);
    if dir.exists() {
        return Err(taken(&dir));
    }
    let approvers = people::approvers(&args.approvers)?;
    let developers = people::developers(args.developers.as_ref(), &args.developers_openpgp)?;
    casemate_tee::sim::refuse_beside_real_tee()?;

    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|e| failure::io(&parent.display().to_string(), &e))?;
    let partial = Scratch::new(parent, ".casemate-init-")?;
    let made = Making::new(partial.path())?;
    let thresholds = Thresholds {
        release: args.threshold,
        admin: args.admin_threshold.unwrap_or(args.threshold),
        trust: args.trust_threshold.unwrap_or(args.threshold),
    };
    // Before the enclaves start, so that a wrong threshold costs nothing.
    let mut trust = made.template(approvers, thresholds, developers)?;
    made.fill(&mut trust)?;
    trust.check()?;
    let file = TrustFile { signed: trust, signatures: Vec::new() };
    replace(&partial.path().join("trust.json"), &to_json(&file)?)?;

    partial.publish(&dir).map_err(|e| match e.kind() {
        std::io::ErrorKind::DirectoryNotEmpty | std::io::ErrorKind::AlreadyExists => taken(&dir),
        _ => failure::io(&dir.display().to_string(), &e),
    })?;
    sync_dir(parent).map_err(|e| failure::io(&parent.display().to_string(), &e))?;
    report(format, &dir, &file)
}

fn taken(dir: &Path) -> Failure {
    Failure::new(
        "CM-CLI-0012",
        Kind::Usage,
        format!("{} exists already; nothing was changed", dir.display()),
    )
    .fix("use it, or name another with --dir")
}

fn report(format: Format, dir: &Path, file: &TrustFile) -> Result<(), Failure> {
    let digest = file.signed.digest()?;
    if format == Format::Json {
        output::json(&serde_json::json!({
            "directory": dir, "trust": dir.join("trust.json"), "installation": digest,
            "simulated": true,
        }));
        return Ok(());
    }
    output::line(&format!("installation {}", dir.display()));
    output::field("trust file", &dir.join("trust.json").display().to_string());
    output::field("pin this digest", &digest.to_string());
    let Thresholds { release, admin, trust } = file.signed.thresholds;
    output::field("thresholds", &format!("release {release}, secrets {admin}, trust {trust}"));
    output::field("developers", &file.signed.developers.len().to_string());
    output::line("  SIMULATED TEE: whoever is root here, or reads sim/, can forge its evidence");
    output::line("next: casemate serve --detach");
    Ok(())
}

/// An installation that is being made.
struct Making {
    installation: PathBuf,
    platform: Arc<Platform>,
    tee: AcceptedTee,
}

impl Making {
    fn new(dir: &Path) -> Result<Self, Failure> {
        let platform = Platform::create(&dir.join("sim"))?;
        let tee = platform.accepted_tee();
        for service in [Service::Ledger, Service::Broker, Service::Signer] {
            let data = dir.join(service_name(service));
            fs::create_dir(&data).map_err(|e| failure::io(&data.display().to_string(), &e))?;
        }
        fs::create_dir(dir.join("run")).map_err(|e| failure::io("run directory", &e))?;
        Ok(Self { installation: dir.to_owned(), platform: Arc::new(platform), tee })
    }

    /// The trust file but for the services' keys; what the user said is checked here.
    fn template(
        &self,
        approvers: Vec<casemate_spec::trust::Approver>,
        thresholds: Thresholds,
        developers: Vec<casemate_spec::trust::Developer>,
    ) -> Result<Trust, Failure> {
        let none = || Sha384([0; 48]);
        let trust = Trust {
            format: Trust::FORMAT.into(),
            version: 1,
            created: Timestamp::from_second(now()).map_err(|e| {
                Failure::new("CM-CLI-0050", Kind::Environment, format!("clock: {e}"))
            })?,
            ancestors: Vec::new(),
            approvers,
            thresholds,
            developers,
            ledger: LedgerTrust { origin: String::new(), vkey: String::new(), measurement: none() },
            broker: BrokerTrust {
                key: String::new(),
                envelope_key: String::new(),
                measurement: none(),
            },
            signer: ServiceTrust { key: String::new(), measurement: none() },
            builders: vec![self.builder()?],
            tees: vec![self.tee.clone()],
        };
        trust.check().map_err(|e| Failure::from(e).into_usage())?;
        Ok(trust)
    }

    /// Has each service make its keys, checks their evidence, and writes them down.
    fn fill(&self, trust: &mut Trust) -> Result<(), Failure> {
        let (ledger_keys, measurement) = self.genesis(Service::Ledger)?;
        let vkey = ledger::vkey_of(&ledger_keys)?;
        trust.ledger =
            LedgerTrust { origin: vkey.name().to_owned(), vkey: vkey.to_string(), measurement };
        let (broker, measurement) = self.genesis(Service::Broker)?;
        trust.broker = BrokerTrust {
            key: broker.key("signing")?.to_owned(),
            envelope_key: broker.key("envelope")?.to_owned(),
            measurement,
        };
        let (signer, measurement) = self.genesis(Service::Signer)?;
        trust.signer = ServiceTrust { key: signer.key("signing")?.to_owned(), measurement };
        Ok(())
    }

    fn genesis(&self, service: Service) -> Result<(Genesis, Sha384), Failure> {
        let name = service_name(service);
        let data = self.installation.join(name);
        let program = serving::program(service, &data)?;
        let expected = casemate_enclave::measure(&program)?.measurement;
        let exit = self.run(program)?;
        let failed = |what: String| {
            Failure::new(
                "CM-CLI-0102",
                Kind::Environment,
                format!("making the {name}'s keys: {what}"),
            )
        };
        if exit != Exit::Code(0) {
            return Err(failed(format!("its enclave ended with status {}", exit.shell_status())));
        }
        let genesis: Genesis = serde_json::from_slice(&read(&data.join(GENESIS))?)
            .map_err(|e| failed(e.to_string()))?;
        let measurement = genesis.verify(std::slice::from_ref(&self.tee), now())?;
        if measurement != expected {
            return Err(failed(format!("measured {measurement}, expected {expected}")));
        }
        Ok((genesis, measurement))
    }

    fn run(&self, program: Program) -> Result<Exit, Failure> {
        let mut options = StartOptions::new(program, Tee::Simulated(Arc::clone(&self.platform)));
        options.streams = [StreamSource::Null, StreamSource::Null, StreamSource::Inherit];
        options.listeners = serving::listeners(serving::free_port()?);
        options.dial = serving::dial(None);
        Ok(start(options)?.wait()?)
    }

    fn builder(&self) -> Result<Sha384, Failure> {
        let program = serving::program(Service::Builder, &self.installation)?;
        Ok(casemate_enclave::measure(&program)?.measurement)
    }
}
