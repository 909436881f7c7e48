//! `casemate secret`: acts on secrets, each on the word of as many approvers as the trust file
//! asks for.

use std::io::Read as _;
use std::path::Path;

use casemate_broker::client::Client;
use casemate_spec::spec::{Spec, check_secret_name};
use casemate_spec::trust::TrustFile;
use casemate_spec::{Kind, Sha384};
use casemate_statement::act::{Act, Action, Grantee, MAX_SIZE, NAMESPACE};
use casemate_statement::bundle::ReleaseBundle;
use casemate_statement::intoto::Statement;
use casemate_statement::slsa::Provenance;
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::args::{ActKeys, Format, Secret, Service, Workload};
use crate::bundles::{now, read_bundle};
use crate::failure::{self, Failure};
use crate::installation::{Installation, read, replace};
use crate::{keys, output, workload};

/// How long people have to sign an act, in seconds.
const LIFETIME: i64 = casemate_broker::ACT_LIFETIME_SECONDS;

/// Runs the command.
///
/// # Errors
/// If the act lacks signatures or the broker refuses it.
pub fn run(installation: &Installation, format: Format, command: &Secret) -> Result<(), Failure> {
    let trust = installation.trust()?;
    let client = || -> Result<Client, Failure> {
        Ok(Client::new(&installation.addresses()?.url(Service::Broker)))
    };
    match command {
        Secret::Put { name, file, keys } => {
            check_name(name)?;
            let value = value(file.as_deref())?;
            let value = casemate_broker::seal_value(&trust.signed, name, &value)?;
            let action = Action::Put { name: name.clone(), value };
            perform(format, &trust, &client, action, keys, None)
        }
        Secret::Grant { name, measurement, release, workload, keys } => {
            check_name(name)?;
            let to = grantee(installation, measurement.as_deref(), release.as_deref(), workload)?;
            let to = to.ok_or_else(|| failure::usage("grant needs --measurement or --release"))?;
            let bundle = release.as_deref().map(read).transpose()?;
            perform(format, &trust, &client, Action::Grant { name: name.clone(), to }, keys, bundle)
        }
        Secret::Revoke { name, measurement, release, workload, all, keys } => {
            check_name(name)?;
            let from = grantee(installation, measurement.as_deref(), release.as_deref(), workload)?;
            let action = if *all {
                Action::Delete { name: name.clone() }
            } else {
                Action::Revoke { name: name.clone(), from }
            };
            perform(format, &trust, &client, action, keys, None)
        }
        Secret::Submit { act, signatures, bundle } => {
            let bytes = read(act)?;
            Act::parse(&bytes)?;
            let armored = signatures
                .iter()
                .map(|path| Ok(keys::read_signature(path)?.to_armored()))
                .collect::<Result<_, Failure>>()?;
            let bundle = bundle.as_deref().map(read).transpose()?;
            submit(format, &trust, &client()?, &bytes, armored, bundle)
        }
        Secret::List => list(format, &trust, &client()?),
    }
}

/// Makes the act, has it signed and sends it; or writes it down, to be signed elsewhere.
fn perform(
    format: Format,
    trust: &TrustFile,
    client: &dyn Fn() -> Result<Client, Failure>,
    action: Action,
    keys: &ActKeys,
    bundle: Option<Vec<u8>>,
) -> Result<(), Failure> {
    let bytes = act(trust, action)?.to_bytes()?;
    if let Some(path) = &keys.print {
        replace(path, &bytes)?;
        output::line(&format!(
            "unsigned act in {}; each of {} approvers:",
            path.display(),
            trust.signed.thresholds.admin
        ));
        output::line(&format!("  ssh-keygen -Y sign -n {NAMESPACE} -f KEY {}", path.display()));
        output::line(
            "then: casemate secret submit ACT --signature SIG ... (for a release: --bundle BUNDLE)",
        );
        return Ok(());
    }
    if keys.keys.is_empty() {
        return Err(failure::usage("an act needs approvers' signatures")
            .fix("give --key SSHKEY once per approver, or --print FILE to sign elsewhere"));
    }
    let signatures = keys
        .keys
        .iter()
        .map(|key| Ok(keys::sign(key, NAMESPACE, &bytes)?.to_armored()))
        .collect::<Result<_, Failure>>()?;
    submit(format, trust, &client()?, &bytes, signatures, bundle)
}

fn act(trust: &TrustFile, action: Action) -> Result<Act, Failure> {
    let time = |seconds| {
        Timestamp::from_second(seconds)
            .map_err(|e| Failure::new("CM-CLI-0050", Kind::Environment, format!("clock: {e}")))
    };
    let id: [u8; 16] = casemate_service::random()?;
    let (created, expires) = (time(now())?, time(now() + LIFETIME)?);
    let format = Act::FORMAT.into();
    Ok(Act { format, trust: trust.signed.digest()?, id: hex::encode(id), created, expires, action })
}

fn submit(
    format: Format,
    trust: &TrustFile,
    client: &Client,
    act: &[u8],
    signatures: Vec<String>,
    bundle: Option<Vec<u8>>,
) -> Result<(), Failure> {
    let (answer, change) = client.act(&trust.signed, act, signatures, bundle)?;
    match format {
        Format::Json => {
            output::json(&serde_json::json!({ "change": change, "receipt": answer.receipt }))
        }
        Format::Text => output::line(&format!(
            "done: broker state {}, ledger entry {}",
            change.epoch, answer.receipt.log_index
        )),
    }
    Ok(())
}

/// Who is meant: a measurement, or the workload of a release on this machine.
fn grantee(
    installation: &Installation,
    measurement: Option<&str>,
    release: Option<&Path>,
    args: &Workload,
) -> Result<Option<Grantee>, Failure> {
    if let Some(text) = measurement {
        return Ok(Some(Grantee::Measurement(text.parse::<Sha384>()?)));
    }
    let Some(path) = release else { return Ok(None) };
    let bundle = read_bundle(path)?;
    let mut program = match &args.spec {
        Some(_) => workload::program(Some(installation), args)?,
        None => workload::from_spec(Some(installation), released_spec(&bundle)?, args)?,
    };
    if program.command.is_empty() {
        program.command = released_command(path, &bundle, &program.spec)?;
    }
    let detail = casemate_enclave::measure(&program)?;
    let (digest, frame) = casemate_broker::frame_of(&detail)?;
    let artifacts: Vec<_> = bundle.artifacts.iter().map(|a| a.sha256).collect();
    if !artifacts.contains(&digest) {
        return Err(Failure::new(
            "CM-CLI-0090",
            Kind::Refused,
            format!("{}: sha256 {digest} is no artifact of {}", program.command[0], path.display()),
        )
        .fix("name a released program: casemate secret grant NAME --release BUNDLE -- PROGRAM"));
    }
    Ok(Some(Grantee::Release { bundle: bundle.digest()?, artifacts, frame }))
}

/// The `casemate.toml` that the release was built from, as its provenance carries it.
fn released_spec(bundle: &ReleaseBundle) -> Result<Spec, Failure> {
    let payload = &bundle.provenance.envelope()?.payload;
    let provenance = Statement::<Provenance>::parse(payload)?.predicate;
    let config = provenance.build_definition.external_parameters.config;
    Ok(Spec::parse(&config.content, &config.path)?)
}

/// The released program beside its bundle, with the arguments of its own spec.
fn released_command(
    path: &Path,
    bundle: &ReleaseBundle,
    spec: &Spec,
) -> Result<Vec<String>, Failure> {
    let [artifact] = bundle.artifacts.as_slice() else {
        return Err(failure::usage(format!(
            "the release has {} artifacts; name the program: ... -- PROGRAM ARGS",
            bundle.artifacts.len()
        )));
    };
    let beside = path.parent().unwrap_or(Path::new(".")).join(&artifact.name);
    let beside =
        beside.canonicalize().map_err(|e| failure::io(&beside.display().to_string(), &e))?;
    let mut command = vec![beside.display().to_string()];
    command.extend(spec.enclave.command.iter().skip(1).cloned());
    Ok(command)
}

/// The value of a secret, from a file or standard input; never from an argument.
fn value(file: Option<&Path>) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut value = Zeroizing::new(Vec::with_capacity(MAX_SIZE));
    let shown = file.map_or("standard input".into(), |p| p.display().to_string());
    let read = match file {
        Some(path) => {
            std::fs::File::open(path).and_then(|f| f.take(MAX_SIZE as u64).read_to_end(&mut value))
        }
        None => std::io::stdin().lock().take(MAX_SIZE as u64).read_to_end(&mut value),
    };
    read.map_err(|e| failure::io(&shown, &e))?;
    if value.is_empty() {
        return Err(failure::usage(format!("{shown}: empty; nothing was stored"))
            .fix("check what was to write the value"));
    }
    Ok(value)
}

fn check_name(name: &str) -> Result<(), Failure> {
    check_secret_name(name).map_err(failure::usage)
}

fn list(format: Format, trust: &TrustFile, client: &Client) -> Result<(), Failure> {
    let list = client.list(&trust.signed)?;
    if format == Format::Json {
        output::json(&list);
        return Ok(());
    }
    if list.secrets.is_empty() {
        output::line("no secrets");
    }
    for secret in &list.secrets {
        output::line(&format!("{}  ({} grants)", secret.name, secret.grants.len()));
        for grant in &secret.grants {
            match grant {
                Grantee::Measurement(m) => output::field("measurement", &m.to_string()),
                Grantee::Release { bundle, .. } => output::field("release", &bundle.to_string()),
                _ => output::field("grant", "of a kind this version does not know"),
            }
        }
    }
    Ok(())
}
