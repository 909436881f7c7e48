//! Grants to a release: which workloads *are* a release.
//!
//! That a workload's program is a released file says little: another agent, another argument, a
//! library of the host's or `LD_PRELOAD` would take the secret out of it. So whoever grants a
//! secret to a release signs the [`Frame`] too: agent, settings and every other file. Only where
//! the program lies in the root is left open, since a release runs on machines whose paths differ.

use casemate_spec::spec::EffectiveSpec;
use casemate_spec::workload::{NodeKind, RootEntry, RootManifest, Workload, WorkloadDetail};
use casemate_spec::{Sha256, Sha384, canonical};
use casemate_statement::act::Frame;
use serde::{Deserialize, Serialize};

use crate::error::BrokerError;

/// Spec and root of a workload, sent beside its evidence so that grants to releases can apply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detail {
    /// The effective spec, as measured.
    pub spec: EffectiveSpec,
    /// The root manifest, as measured.
    pub root: RootManifest,
}

impl Detail {
    /// Checks that this is the spec and the root in evidence that was believed.
    ///
    /// # Errors
    /// [`BrokerError::Detail`] if one of them is another.
    pub fn check(&self, workload: &Workload) -> Result<(), BrokerError> {
        let spec = self.spec.digest().map_err(BrokerError::other)?;
        let root = self.root.digest().map_err(BrokerError::other)?;
        for (what, expected, found) in
            [("spec", workload.spec, spec), ("root", workload.root, root)]
        {
            if expected != found {
                return Err(BrokerError::Detail { what, expected, found });
            }
        }
        Ok(())
    }

    /// SHA-256 of the program, and the frame around it.
    ///
    /// # Errors
    /// If the program is not a file of the root under the very path that the spec names.
    pub fn frame(&self, agent: Sha384) -> Result<(Sha256, Frame), BrokerError> {
        let path = self.spec.command.first().map_or("", String::as_str);
        let is_program = |e: &&RootEntry| e.path == path && e.kind == NodeKind::File;
        let program = self.root.entries().iter().find(is_program).and_then(|e| e.sha256);
        let Some(program) = program else {
            return Err(BrokerError::Bundle(format!(
                "expected the program {path:?} to be a file of the root, found none"
            )));
        };
        let mut settings = self.spec.clone();
        if let Some(path) = settings.command.first_mut() {
            path.clear();
        }
        let around = |e: &&RootEntry| e.path != path && e.kind != NodeKind::Directory;
        let runtime =
            RootManifest::new(self.root.entries().iter().filter(around).cloned().collect());
        let digest = canonical::sha256(&settings).map_err(BrokerError::other)?;
        let runtime = runtime.digest().map_err(BrokerError::other)?;
        Ok((program, Frame { agent, settings: digest, runtime }))
    }
}

/// The frame of a workload as `casemate measure` describes it: what an act that grants a secret to
/// a release carries. Also gives the digest of the program in it.
///
/// # Errors
/// If the detail holds no effective spec, or its program is no file of its root.
pub fn frame_of(detail: &WorkloadDetail) -> Result<(Sha256, Frame), BrokerError> {
    let spec = serde_json::from_value(detail.spec.clone())
        .map_err(|e| BrokerError::Request(format!("workload detail: spec: {e}")))?;
    Detail { spec, root: detail.root.clone() }.frame(detail.workload.agent)
}

/// Why a workload is not the release, or nothing if it is.
pub(crate) fn mismatch(
    artifacts: &[Sha256],
    granted: &Frame,
    program: &Sha256,
    found: &Frame,
) -> Option<String> {
    if !artifacts.contains(program) {
        return Some(format!("its program {program} is no artifact of the release"));
    }
    let Frame { agent, settings, runtime } = granted;
    let differs = [
        ("agent", agent == &found.agent),
        ("arguments, environment or other settings", settings == &found.settings),
        ("a library or other file", runtime == &found.runtime),
    ];
    differs.iter().find(|(_, same)| !same).map(|(what, _)| format!("{what} differs from the grant"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use casemate_spec::spec::Spec;

    fn file(path: &str, content: &[u8]) -> RootEntry {
        RootEntry {
            path: path.into(),
            kind: NodeKind::File,
            mode: 0o755,
            size: content.len() as u64,
            sha256: Some(Sha256::of(content)),
            target: None,
        }
    }

    fn detail(path: &str) -> Detail {
        let directory =
            RootEntry { kind: NodeKind::Directory, sha256: None, size: 0, ..file("/x", b"") };
        Detail {
            spec: Spec::minimal().effective(vec![path.into(), "--serve".into()], None),
            root: RootManifest::new(vec![
                file(path, b"program"),
                file("/lib/libc.so.6", b"libc"),
                RootEntry { path: path.rsplit_once('/').expect("slash").0.into(), ..directory },
            ]),
        }
    }

    #[test]
    fn a_release_may_lie_anywhere() {
        let one = detail("/srv/a/hello").frame(Sha384([1; 48])).expect("frame");
        let two = detail("/home/b/hello").frame(Sha384([1; 48])).expect("frame");
        assert_eq!(one, two);
        assert_eq!(mismatch(&[one.0], &one.1, &two.0, &two.1), None);
    }

    #[test]
    fn nothing_else_may_differ() {
        let (program, frame) = detail("/a/hello").frame(Sha384([1; 48])).expect("frame");
        let changes: [fn(&mut Detail); 7] = [
            |d| d.spec.command[1] = "--leak".into(),
            |d| drop(d.spec.env.insert("LD_PRELOAD".into(), "/lib/libc.so.6".into())),
            |d| d.spec.pass_env.push("X".into()),
            |d| {
                d.root = RootManifest::new(vec![
                    file("/a/hello", b"program"),
                    file("/lib/libc.so.6", b"evil"),
                ])
            },
            |d| {
                d.root = RootManifest::new(vec![
                    file("/a/hello", b"program"),
                    file("/lib/evil.so", b"libc"),
                ])
            },
            |d| {
                d.root = RootManifest::new(vec![
                    file("/a/hello", b"evil"),
                    file("/lib/libc.so.6", b"libc"),
                ])
            },
            |d| d.spec.attestation = true,
        ];
        for (i, change) in changes.iter().enumerate() {
            let mut changed = detail("/a/hello");
            change(&mut changed);
            let (p, f) = changed.frame(Sha384([1; 48])).expect("frame");
            assert!(mismatch(&[program], &frame, &p, &f).is_some(), "case {i} was accepted");
        }
        let (p, f) = detail("/a/hello").frame(Sha384([2; 48])).expect("frame");
        assert!(mismatch(&[program], &frame, &p, &f).is_some_and(|m| m.contains("agent")));
    }

    #[test]
    fn refuses_a_detail_that_is_not_the_one_in_the_evidence() {
        let honest = detail("/a/hello");
        let workload = Workload {
            spec: honest.spec.digest().expect("digest"),
            root: honest.root.digest().expect("digest"),
            agent: Sha384([1; 48]),
            production: true,
        };
        assert!(honest.check(&workload).is_ok());
        for other in [
            Workload { spec: Sha256([0; 32]), ..workload.clone() },
            Workload { root: Sha256([0; 32]), ..workload.clone() },
        ] {
            assert!(matches!(honest.check(&other), Err(BrokerError::Detail { .. })));
        }
    }

    #[test]
    fn refuses_a_program_that_is_a_link_or_missing() {
        let mut link = detail("/a/hello");
        link.root = RootManifest::new(vec![RootEntry {
            kind: NodeKind::Symlink,
            target: Some("/b".into()),
            sha256: None,
            ..file("/a/hello", b"")
        }]);
        assert!(link.frame(Sha384([1; 48])).is_err());
        let mut none = detail("/a/hello");
        none.spec.command.clear();
        assert!(none.frame(Sha384([1; 48])).is_err());
    }
}
