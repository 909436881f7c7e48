//! `casemate ledger`: what the log holds, and whether it is what it signed.

use std::path::Path;

use casemate_ledger::audit::verify_dir;
use casemate_ledger::client::Client;
use casemate_statement::rekor::{HashedRekord, Verifier};
use casemate_tlog::Checkpoint;

use crate::args::{Format, Ledger, Service};
use crate::bundles::{self, ledger_key};
use crate::failure::Failure;
use crate::installation::{self, Installation, read};
use crate::output;

/// Entries asked for at a time.
const PAGE: u64 = 1024;

/// Runs the command. `ledger verify` alone needs neither installation nor service, if it is told
/// the log's directory and a trust file.
///
/// # Errors
/// If the services do not run, or the log is not what it signed.
pub fn run(dir: Option<&Path>, format: Format, command: &Ledger) -> Result<(), Failure> {
    if let Ledger::Verify { log, trust, known } = command {
        return verify(dir, format, log.as_deref(), trust.as_deref(), known.as_deref());
    }
    let installation = Installation::find(dir)?;
    let trust = installation.trust()?;
    let client = bundles::ledger(&installation, &trust)?;
    match command {
        Ledger::Show { index: Some(index) } => show_one(&client, format, *index),
        Ledger::Show { index: None } => show_all(&client, format),
        Ledger::Prove { index } => prove(&client, format, *index),
        Ledger::Consistency { from } => consistency(&client, format, from),
        Ledger::Verify { .. } => Ok(()),
    }
}

fn show_all(client: &Client, format: Format) -> Result<(), Failure> {
    let published = client.checkpoint()?;
    let size = published.checkpoint.size;
    let mut entries = Vec::new();
    let mut next = 0;
    while next < size {
        let page = client.entries(next, size.min(next + PAGE))?;
        for leaf in page {
            entries.push((next, HashedRekord::parse(&leaf)?));
            next += 1;
        }
    }
    if format == Format::Json {
        let list: Vec<_> = entries
            .iter()
            .map(|(index, record)| {
                serde_json::json!({
                    "index": index, "digest": record.digest.to_string(), "key": keyid(record),
                })
            })
            .collect();
        output::json(&serde_json::json!({
            "origin": published.checkpoint.origin, "size": size,
            "root": published.checkpoint.root, "checkpoint": published.note, "entries": list,
        }));
        return Ok(());
    }
    output::field("origin", &published.checkpoint.origin);
    output::field("size", &size.to_string());
    output::field("root", &published.checkpoint.root.to_string());
    for (index, record) in entries {
        let what = describe(client, &record).unwrap_or_else(|| "content not kept".into());
        let key: String = keyid(&record).chars().take(12).collect();
        output::line(&format!("{index:>6}  key {key}  {}", output::plain(&what)));
    }
    Ok(())
}

/// Who signed an entry, as far as it says.
fn keyid(record: &HashedRekord) -> String {
    match &record.verifier {
        Verifier::Key { key, .. } => key.keyid(),
        _ => "certificate".into(),
    }
}

/// What an entry is about, from the bytes its signature covers.
fn describe(client: &Client, record: &HashedRekord) -> Option<String> {
    let digest = casemate_spec::Sha256(record.digest.bytes().try_into().ok()?);
    let blob = client.blob(&digest).ok()?;
    if let Some(payload) = dsse_payload(&blob) {
        let value: serde_json::Value = serde_json::from_slice(payload).ok()?;
        let kind = value.get("predicateType")?.as_str()?.trim_start_matches("https://").to_owned();
        let subject = value.pointer("/subject/0/name").and_then(|n| n.as_str()).unwrap_or("");
        return Some(format!("{kind} {subject}"));
    }
    if let Some(rest) = blob.strip_prefix(b"SSHSIG") {
        let length = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let namespace = rest.get(4..4 + length)?;
        return Some(format!("SSH signature, {}", String::from_utf8_lossy(namespace)));
    }
    Some("signature of a file".into())
}

/// The payload inside the pre-authentication encoding of DSSE v1.
fn dsse_payload(pae: &[u8]) -> Option<&[u8]> {
    let rest = pae.strip_prefix(b"DSSEv1 ")?;
    let mut parts = rest.splitn(4, |b| *b == b' ');
    parts.nth(3)
}

fn show_one(client: &Client, format: Format, index: u64) -> Result<(), Failure> {
    let entry = client.entry(index)?;
    let record = entry.verify(client.key())?.record;
    let digest: Option<[u8; 32]> = record.digest.bytes().try_into().ok();
    let blob = digest.and_then(|d| client.blob(&casemate_spec::Sha256(d)).ok());
    let statement: Option<serde_json::Value> =
        blob.as_deref().and_then(dsse_payload).and_then(|p| serde_json::from_slice(p).ok());
    if format == Format::Json {
        output::json(&serde_json::json!({ "entry": entry, "statement": statement }));
        return Ok(());
    }
    output::field("index", &index.to_string());
    output::field("digest", &record.digest.to_string());
    output::field("key", &keyid(&record));
    match statement {
        Some(value) => output::json(&value),
        None => output::field("content", &describe(client, &record).unwrap_or_default()),
    }
    Ok(())
}

fn prove(client: &Client, format: Format, index: u64) -> Result<(), Failure> {
    let entry = client.entry(index)?;
    let logged = entry.verify(client.key())?;
    if format == Format::Json {
        output::json(&entry);
        return Ok(());
    }
    output::check(
        true,
        &format!("entry {} is in the log of {} entries", logged.index, logged.size),
    );
    let proof = serde_json::to_value(&entry).unwrap_or_default();
    for hash in
        proof.pointer("/inclusionProof/hashes").and_then(|h| h.as_array()).into_iter().flatten()
    {
        output::field("", hash.as_str().unwrap_or(""));
    }
    Ok(())
}

fn consistency(client: &Client, format: Format, from: &Path) -> Result<(), Failure> {
    let known = known_checkpoint(from, client.key())?;
    let now = client.checkpoint()?;
    let proof = client.consistency(&known, &now.checkpoint)?;
    if format == Format::Json {
        output::json(&serde_json::json!({
            "from": known.size, "to": now.checkpoint.size, "hashes": proof, "checkpoint": now.note,
        }));
        return Ok(());
    }
    output::check(
        true,
        &format!(
            "the log grew from {} to {} entries and nothing before changed",
            known.size, now.checkpoint.size
        ),
    );
    Ok(())
}

fn verify(
    dir: Option<&Path>,
    format: Format,
    log: Option<&Path>,
    trust: Option<&Path>,
    known: Option<&Path>,
) -> Result<(), Failure> {
    let installation = match (log, trust) {
        (Some(_), Some(_)) => None,
        _ => Some(Installation::find(dir)?),
    };
    let trust = match (trust, &installation) {
        (Some(path), _) => installation::read_trust(path)?,
        (None, Some(installation)) => installation.trust()?,
        (None, None) => return Err(crate::failure::usage("name a trust file with --trust")),
    };
    let own = installation.map(|i| i.data_dir(Service::Ledger).join("log"));
    let log = log.or(own.as_deref()).unwrap_or(Path::new("."));
    let key = ledger_key(&trust)?;
    let known = known.map(|path| known_checkpoint(path, &key)).transpose()?;
    let audited = verify_dir(log, &key, known.as_ref())?;
    if format == Format::Json {
        output::json(&serde_json::json!({
            "accepted": true, "origin": audited.checkpoint.origin, "size": audited.checkpoint.size,
            "root": audited.checkpoint.root, "checkpoint": audited.note,
        }));
        return Ok(());
    }
    output::check(
        true,
        &format!(
            "every leaf and hash of {} entries leads to the signed root",
            audited.checkpoint.size
        ),
    );
    output::field("root", &audited.checkpoint.root.to_string());
    match known {
        Some(known) => output::check(
            true,
            &format!("continues the known checkpoint of {} entries", known.size),
        ),
        None => output::line("  without --known, a log rolled back as a whole can not be told"),
    }
    Ok(())
}

/// A checkpoint kept from before: a signed note, or the JSON that holds one.
fn known_checkpoint(
    path: &Path,
    key: &casemate_tlog::note::VerifierKey,
) -> Result<Checkpoint, Failure> {
    let bytes = read(path)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let note = serde_json::from_str::<serde_json::Value>(&text)
        .ok()
        .and_then(|v| v.get("checkpoint").and_then(|c| c.as_str()).map(str::to_owned))
        .unwrap_or(text);
    Checkpoint::open(&note, key).map_err(|e| Failure::from(e).during(&path.display().to_string()))
}
