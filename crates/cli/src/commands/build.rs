//! `casemate build`: has the builder's enclave make a release from a repository.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Seek as _};
use std::path::Path;
use std::time::Duration;

use casemate_builder::{Progress, Request};
use casemate_enclave::{Exit, StreamSource, start};
use casemate_provenance::build::Event;
use casemate_provenance::source;
use casemate_spec::Kind;
use casemate_statement::bundle::ReleaseBundle;
use indicatif::ProgressBar;

use super::service::{Line, REQUEST, RESOLVER, Refused};
use crate::args::{Build, Format};
use crate::bundles;
use crate::failure::{self, Failure};
use crate::installation::{Installation, replace, sync_dir};
use crate::scratch::Scratch;
use crate::{output, serving, workload};

/// Name of the bundle in the output directory.
pub const BUNDLE: &str = "bundle.json";

/// Runs the command.
///
/// # Errors
/// Whatever the builder refuses; the output directory is then as it was.
pub fn run(installation: &Installation, format: Format, args: &Build) -> Result<(), Failure> {
    casemate_provenance::build::check_privilege()?;
    let trust = installation.trust()?;
    let addresses = installation.addresses()?;
    let revision = revision(args)?;
    if let Some(bundle) = already_built(&args.output, &revision)? {
        report(format, &args.output, &bundle, true);
        return Ok(());
    }
    let repository = source::object_dir(&args.repo)?;
    let request = Request { trust, revision, repository: repository_name(&args.repo)? };

    let parent =
        args.output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|e| failure::io(&parent.display().to_string(), &e))?;
    let work = Scratch::new(parent, ".casemate-build-")?;
    let bytes =
        serde_json::to_vec(&request).map_err(|e| failure::usage(format!("build request: {e}")))?;
    replace(&work.path().join(REQUEST), &bytes)?;
    // Untrusted like the network it leads to; a machine without one resolves no names in the build.
    let _ = fs::copy("/etc/resolv.conf", work.path().join(RESOLVER));

    let program = serving::builder(&repository, work.path())?;
    let mut options = workload::options(Some(installation), program)?;
    let log = tempfile::tempfile().map_err(|e| failure::io("temporary file", &e))?;
    let (reader, writer) =
        rustix::pipe::pipe().map_err(|e| failure::io("pipe", &std::io::Error::from(e)))?;
    let errors = log.try_clone().map_err(|e| failure::io("temporary file", &e))?;
    options.streams =
        [StreamSource::Null, StreamSource::Fd(writer), StreamSource::Fd(errors.into())];
    options.dial = serving::dial(Some(addresses.ledger));
    options.forward_signals = true;
    let running = start(options)?;
    let end = follow(File::from(reader), format);
    let exit = running.wait()?;
    let bundle = match end {
        Some(End::Bundle(bundle)) => *bundle,
        Some(End::Refused(refused)) => return Err(Failure::inside(refused)),
        None => return Err(lost(exit, log)),
    };
    finish(&work.path().join("artifacts"), &args.output, &bundle)?;
    report(format, &args.output, &bundle, false);
    Ok(())
}

/// The commit or signed tag to build. Without `--rev` it is HEAD, and only if the checkout shows
/// what HEAD holds: otherwise what is built is not what is seen.
fn revision(args: &Build) -> Result<String, Failure> {
    if let Some(rev) = &args.rev {
        return Ok(source::resolve(&args.repo, rev)?.to_string());
    }
    let changed = source::dirty(&args.repo)?.unwrap_or_default();
    if let Some(first) = changed.first() {
        return Err(Failure::new(
            "CM-CLI-0110",
            Kind::Refused,
            format!("the checkout differs from HEAD in {} files, such as {first}", changed.len()),
        )
        .fix("commit the changes, or name what to build with --rev"));
    }
    Ok(source::resolve(&args.repo, "HEAD")?.to_string())
}

fn repository_name(repository: &Path) -> Result<String, Failure> {
    let path = repository
        .canonicalize()
        .map_err(|e| failure::io(&repository.display().to_string(), &e))?;
    Ok(path.file_name().map_or_else(|| "repository".into(), |n| n.to_string_lossy().into_owned()))
}

/// The bundle of an earlier, finished build of the same revision in `output`.
fn already_built(output: &Path, revision: &str) -> Result<Option<ReleaseBundle>, Failure> {
    let mut entries = match fs::read_dir(output) {
        Ok(entries) => entries,
        Err(e)
            if e.kind() == std::io::ErrorKind::NotFound
                && fs::symlink_metadata(output).is_err() =>
        {
            return Ok(None);
        }
        Err(e) => {
            return Err(failure::io(&output.display().to_string(), &e)
                .into_usage()
                .fix("name a new or empty directory with -o"));
        }
    };
    if entries.next().is_none() {
        return Ok(None);
    }
    let taken = |why: &str| {
        Failure::new("CM-CLI-0111", Kind::Usage, format!("{}: {why}", output.display()))
            .fix("name an empty or new directory with -o")
    };
    let path = output.join(BUNDLE);
    if !path.exists() {
        return Err(taken("not empty, and holds no earlier build"));
    }
    let bundle = bundles::read_bundle(&path)?;
    let payload = &bundle.source.detail.envelope()?.payload;
    let verdict =
        casemate_statement::intoto::Statement::<casemate_statement::source::SourceVerdict>::parse(
            payload,
        )?;
    if verdict.predicate.commit != revision {
        return Err(taken("holds the build of another revision"));
    }
    for artifact in &bundle.artifacts {
        let found = bundles::artifact(&output.join(&artifact.name))?;
        if found.sha256 != artifact.sha256 {
            return Err(taken(&format!("artifact {} is not the one in the bundle", artifact.name)));
        }
    }
    Ok(Some(bundle))
}

/// How a build ended.
enum End {
    Bundle(Box<ReleaseBundle>),
    Refused(Refused),
}

/// Shows the builder's progress until its last line.
fn follow(pipe: File, format: Format) -> Option<End> {
    let bar =
        if format == Format::Text { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.enable_steady_tick(Duration::from_millis(120));
    let mut end = None;
    for line in BufReader::new(pipe).lines().map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(Line::Progress(progress)) => show(&bar, &progress, format),
            Ok(Line::Bundle(bundle)) => end = Some(End::Bundle(bundle)),
            Ok(Line::Refused(refused)) => end = Some(End::Refused(refused)),
            // Whatever else is on that stream is not the builder's word.
            Err(_) => {}
        }
    }
    bar.finish_and_clear();
    end
}

fn show(bar: &ProgressBar, progress: &Progress, format: Format) {
    let say = |text: String| {
        if format == Format::Text {
            bar.suspend(|| output::error_line(&text));
        }
    };
    match progress {
        Progress::Verifying => bar.set_message("verifying the history"),
        Progress::Verified { commit, commits, files } => {
            let commit = commit.get(..12).unwrap_or(commit);
            say(format!("source verified: commit {commit}, {commits} commits, {files} files"));
        }
        Progress::Build(Event::Step { number, total, command, fetch }) => {
            let network = if *fetch { ", with network" } else { "" };
            say(format!(
                "step {number} of {total}{network}: {}",
                output::plain(&command.join(" "))
            ));
            bar.set_message("building");
        }
        Progress::Build(Event::Output { text }) => {
            text.trim_end().lines().for_each(|line| say(output::plain(line)));
        }
        Progress::Build(Event::NetworkAttempts { command, attempts }) => say(format!(
            "note: {} tried to use the network {attempts} times and got none",
            command.join(" ")
        )),
        Progress::Logging => bar.set_message("signing and logging"),
        _ => {}
    }
}

/// The builder ended without a word.
fn lost(exit: Exit, mut log: File) -> Failure {
    let mut text = String::new();
    let _ = log.rewind();
    let _ = std::io::Read::read_to_string(&mut log, &mut text);
    let last = text.lines().last().unwrap_or("no message").to_owned();
    Failure::new(
        "CM-CLI-0112",
        Kind::Environment,
        format!("the builder ended with status {} and no bundle: {last}", exit.shell_status()),
    )
}

/// Moves the finished build into place in one step: the output directory is there with everything
/// in it, or not at all.
fn finish(artifacts: &Path, output: &Path, bundle: &ReleaseBundle) -> Result<(), Failure> {
    let io = |e: std::io::Error| failure::io(&output.display().to_string(), &e);
    for artifact in &bundle.artifacts {
        if bundles::artifact(&artifacts.join(&artifact.name))?.sha256 != artifact.sha256 {
            return Err(Failure::new(
                "CM-CLI-0113",
                Kind::Refused,
                format!("{}: changed after the builder wrote it", artifact.name),
            )
            .fix("somebody else writes to the output directory; build elsewhere"));
        }
    }
    replace(&artifacts.join(BUNDLE), &bundle.to_bytes()?)?;
    sync_dir(artifacts).map_err(io)?;
    // An existing output directory is empty; a plain one is replaced, a mount point is filled.
    let real = output.canonicalize();
    let target = real.as_deref().unwrap_or(output);
    if fs::rename(artifacts, target).is_err() {
        fill(artifacts, target, bundle)?;
    }
    sync_dir(target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
        .map_err(io)
}

/// Copies the build into a directory that can not be replaced, the bundle last.
fn fill(artifacts: &Path, target: &Path, bundle: &ReleaseBundle) -> Result<(), Failure> {
    for name in bundle.artifacts.iter().map(|a| a.name.as_str()).chain([BUNDLE]) {
        let to = target.join(name);
        let copied = fs::copy(artifacts.join(name), &to).and_then(|_| File::open(&to)?.sync_all());
        copied.map_err(|e| failure::io(&to.display().to_string(), &e))?;
    }
    sync_dir(target).map_err(|e| failure::io(&target.display().to_string(), &e))
}

fn report(format: Format, output: &Path, bundle: &ReleaseBundle, again: bool) {
    if format == Format::Json {
        output::json(&serde_json::json!({
            "output": output, "bundle": output.join(BUNDLE), "artifacts": bundle.artifacts,
            "again": again, "simulated": true,
        }));
        return;
    }
    let word = if again { "had been built already" } else { "built in a SIMULATED TEE" };
    for artifact in &bundle.artifacts {
        output::line(&format!("{} {word}", output.join(&artifact.name).display()));
        output::field("sha256", &artifact.sha256.to_string());
    }
    output::field("bundle", &output.join(BUNDLE).display().to_string());
}
