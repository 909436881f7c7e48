//! `casemate trace`: from a shipped file back over its build to the people who wrote it.

use std::collections::BTreeMap;

use casemate_provenance::source;
use casemate_spec::Kind;
use casemate_statement::bundle::ReleaseBundle;
use casemate_statement::intoto::{CLASS, Statement};
use casemate_statement::slsa::Provenance;
use casemate_statement::source::SourceVerdict;
use casemate_verify::{Verdict, verify_release};
use serde::Serialize;

use crate::args::{Format, Trace};
use crate::bundles::{self, read_bundle};
use crate::failure::{self, Failure};
use crate::installation::{self, Installation};
use crate::output;

/// The whole answer.
#[derive(Serialize)]
struct Answer {
    artifact: String,
    sha256: String,
    simulated: Option<bool>,
    repository: String,
    commit: String,
    files: Vec<FileAnswer>,
    packages: Vec<PackageAnswer>,
    approved_by: Vec<String>,
    ledger_entries: Vec<u64>,
}

/// A source file that the build read.
#[derive(Serialize)]
struct FileAnswer {
    path: String,
    sha256: String,
    commit: String,
    developer: Option<String>,
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lines: Vec<LineAnswer>,
}

/// Lines of one commit.
#[derive(Serialize)]
struct LineAnswer {
    first: u32,
    count: u32,
    commit: String,
    developer: Option<String>,
}

/// A toolchain package, and how many of its files were read.
#[derive(Serialize)]
struct PackageAnswer {
    purl: String,
    files: usize,
}

/// Runs the command.
///
/// # Errors
/// If the bundle does not verify, or the file or line asked for is not in it.
pub fn run(dir: Option<&std::path::Path>, format: Format, args: &Trace) -> Result<(), Failure> {
    let trust = match &args.trust {
        Some(path) => installation::read_trust(path)?,
        None => Installation::find(dir)?.trust()?,
    };
    let bundle = read_bundle(&args.bundle)?;
    let artifact = bundles::artifact(&args.artifact)?;
    let verdict = verify_release(&artifact, &bundle, &trust, bundles::now());
    verdict.result()?;
    let mut answer = answer(&verdict, &bundle, &artifact.name)?;
    if let Some(file) = &args.file {
        answer.files.retain(|f| f.path == *file);
        if answer.files.is_empty() {
            return Err(Failure::new(
                "CM-CLI-0060",
                Kind::Refused,
                format!("{file}: not a source file that this build read"),
            )
            .fix("run trace without --file for the list"));
        }
    }
    if let (Some(repository), Some(file)) = (&args.repo, &args.file) {
        blame(&mut answer, &bundle, repository, file, args.line)?;
    } else if args.line.is_some() {
        return Err(failure::usage("--line needs --repo, whose history holds the lines"));
    }
    match format {
        Format::Json => output::json(&answer),
        Format::Text => show(&answer),
    }
    Ok(())
}

fn answer(verdict: &Verdict, bundle: &ReleaseBundle, name: &str) -> Result<Answer, Failure> {
    let source = source_verdict(bundle)?;
    let provenance = Statement::<Provenance>::parse(&bundle.provenance.envelope()?.payload)?;
    let fingerprints: BTreeMap<&str, &str> =
        source.commits.iter().map(|c| (c.id.as_str(), c.fingerprint.as_str())).collect();
    let mut read = std::collections::BTreeSet::new();
    let mut packages: BTreeMap<String, usize> = BTreeMap::new();
    for input in &provenance.predicate.build_definition.resolved_dependencies {
        match input.annotations.get(CLASS).and_then(|c| c.as_str()) {
            Some("source") => read.extend(input.name.clone()),
            Some("toolchain") => {
                *packages.entry(input.uri.clone().unwrap_or_default()).or_default() += 1;
            }
            _ => {}
        }
    }
    let files = source
        .files
        .iter()
        .filter(|f| read.contains(&f.path))
        .map(|f| FileAnswer {
            path: f.path.clone(),
            sha256: f.sha256.to_string(),
            commit: f.commit.clone(),
            developer: f.signer.clone(),
            fingerprint: fingerprints.get(f.commit.as_str()).map(|p| (*p).to_owned()),
            lines: Vec::new(),
        })
        .collect();
    let sha256 = verdict.chain.artifact.as_ref().map(|a| a.sha256.to_string());
    Ok(Answer {
        artifact: name.into(),
        sha256: sha256.unwrap_or_default(),
        simulated: verdict.simulated,
        repository: source.repository.clone(),
        commit: source.commit.clone(),
        files,
        packages: packages.into_iter().map(|(purl, files)| PackageAnswer { purl, files }).collect(),
        approved_by: verdict.chain.approvals.iter().map(|a| a.name.clone()).collect(),
        ledger_entries: verdict.chain.ledger.entries.iter().map(|e| e.index).collect(),
    })
}

fn source_verdict(bundle: &ReleaseBundle) -> Result<SourceVerdict, Failure> {
    let payload = &bundle.source.detail.envelope()?.payload;
    Ok(Statement::<SourceVerdict>::parse(payload)?.predicate)
}

/// Adds who wrote which lines, by the repository's history up to the released commit. The commits
/// it names count only if they are among those the release verified.
fn blame(
    answer: &mut Answer,
    bundle: &ReleaseBundle,
    repository: &std::path::Path,
    file: &str,
    line: Option<u32>,
) -> Result<(), Failure> {
    let source = source_verdict(bundle)?;
    let commit =
        source.commit.parse().map_err(|e| failure::usage(format!("source verdict: {e}")))?;
    let signers: BTreeMap<&str, &str> =
        source.commits.iter().map(|c| (c.id.as_str(), c.signer.as_str())).collect();
    for lines in source::blame(repository, commit, file, line)? {
        let id = lines.commit.to_string();
        let developer = signers.get(id.as_str()).map(|s| (*s).to_owned());
        let entry = LineAnswer { first: lines.first, count: lines.count, commit: id, developer };
        if let Some(file) = answer.files.first_mut() {
            file.lines.push(entry);
        }
    }
    Ok(())
}

fn show(answer: &Answer) {
    output::line(&format!(
        "{}  sha256 {}",
        output::bold(&output::plain(&answer.artifact)),
        short(&answer.sha256)
    ));
    if answer.simulated == Some(true) {
        output::line("|  built in a SIMULATED TEE: its operator could have forged the build");
    }
    output::line(&format!("+- source {} commit {}", answer.repository, short(&answer.commit)));
    for file in &answer.files {
        let developer = file.developer.as_deref().unwrap_or("before verified history");
        output::line(&format!("|  +- {:<20} {}  {developer}", file.path, short(&file.commit)));
        if let Some(fingerprint) = &file.fingerprint {
            output::line(&format!("|  |    key {fingerprint}"));
        }
        for lines in &file.lines {
            let last = lines.first + lines.count.saturating_sub(1);
            let who = lines.developer.as_deref().unwrap_or("before verified history");
            let range = if last == lines.first {
                format!("line {last}")
            } else {
                format!("lines {}-{last}", lines.first)
            };
            output::line(&format!("|  |  +- {range:<14} {}  {who}", short(&lines.commit)));
        }
    }
    if !answer.packages.is_empty() {
        output::line("+- toolchain");
    }
    for package in &answer.packages {
        let name = package.purl.split('?').next().unwrap_or(&package.purl);
        let name: String = name.chars().take(output::WIDTH - 24).collect();
        output::line(&format!("|  +- {name} ({} files)", package.files));
    }
    output::line(&format!("+- approved by {}", answer.approved_by.join(", ")));
    let entries: Vec<String> = answer.ledger_entries.iter().map(u64::to_string).collect();
    output::line(&format!("+- ledger entries {}", entries.join(" ")));
}

fn short(hex: &str) -> &str {
    hex.get(..12).unwrap_or(hex)
}
