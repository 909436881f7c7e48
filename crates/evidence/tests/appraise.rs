//! Each reason for refusing evidence, beside its honest twin.
#![allow(clippy::expect_used, clippy::panic)]

mod common;

use casemate_evidence::snp::{CertKind, ReportError, SIGNED_SIZE};
use casemate_evidence::{EvidenceError, Expect, Record, Verifier, appraise};
use casemate_spec::Coded;
use casemate_spec::binding::{Purpose, report_data};
use casemate_spec::trust::{LaunchRule, TeeKind};
use casemate_spec::{Sha256, Sha384};
use common::{Chip, NONCE, NOW, SPKI, amd, expect, ia5, integer, issuer, params, statement};
use rcgen::{CustomExtension, IsCa, date_time_ymd};

#[test]
fn accepts_honest_evidence_and_names_every_check() {
    let appraisal = Chip::honest().appraise();
    let claims = appraisal.result().expect("accepted");
    assert_eq!(claims.tee, TeeKind::SimSnp);
    assert!(claims.simulated && !claims.debug);
    assert_eq!(claims.workload, Chip::honest().workload);
    let names: Vec<&str> = appraisal.checks.iter().map(|c| c.name).collect();
    for name in [
        "root",
        "validity",
        "signing key",
        "product",
        "certificate's firmware",
        "chip",
        "signature",
        "debug",
        "privilege level",
        "guest policy",
        "firmware floor",
        "launch",
        "nonce",
        "production",
        "key",
        "report data",
    ] {
        assert!(names.contains(&name), "{name} was not checked");
    }
    assert!(serde_json::to_string(&appraisal).is_ok());
}

#[test]
fn a_record_is_the_same_after_it_was_read_back() {
    let (record, tee) = Chip::honest().evidence();
    let read = Record::parse(&record.to_json()).expect("record");
    assert_eq!(read, record);
    assert_eq!(read.to_json(), record.to_json());
    assert!(appraise(&read, &expect(), &[tee], NOW).result().is_ok());
}

#[test]
fn refuses_the_debug_bit() {
    refused(|c| c.report.policy |= 1 << 19, "CM-EVID-0020");
}

#[test]
fn refuses_a_privilege_level_other_than_the_highest() {
    refused(|c| c.report.vmpl = 1, "CM-EVID-0021");
    refused(|c| c.report.vmpl = u32::MAX, "CM-EVID-0021");
}

#[test]
fn refuses_a_policy_with_a_migration_agent_or_unknown_bits() {
    refused(|c| c.report.policy |= 1 << 18, "CM-EVID-0022");
    refused(|c| c.report.policy |= 1 << 40, "CM-EVID-0022");
    refused(|c| c.report.policy &= !(1 << 17), "CM-EVID-0022");
}

#[test]
fn refuses_firmware_below_any_floor() {
    refused(|c| c.tee.min_tcb.bootloader += 1, "CM-EVID-0023");
    refused(|c| c.tee.min_tcb.tee += 1, "CM-EVID-0023");
    refused(|c| c.tee.min_tcb.snp += 1, "CM-EVID-0023");
    refused(|c| c.tee.min_tcb.microcode += 1, "CM-EVID-0023");
    refused(|c| c.tee.min_tcb.fmc += 1, "CM-EVID-0023");
}

#[test]
fn refuses_a_certificate_made_for_other_firmware() {
    refused(
        |c| c.vcek.custom_extensions = statement("Genoa", [10, 1, 0, 0, 0, 0, 23, 201], &[9; 64]),
        "CM-EVID-0016",
    );
}

#[test]
fn refuses_a_certificate_of_another_chip() {
    let tcb = [10, 1, 0, 0, 0, 0, 23, 200];
    refused(|c| c.vcek.custom_extensions = statement("Genoa", tcb, &[8; 64]), "CM-EVID-0017");
    let wrapped = [&[4, 64], &[9; 64][..]].concat();
    accepted(|c| c.vcek.custom_extensions = statement("Genoa", tcb, &wrapped));
}

#[test]
fn refuses_a_hidden_chip() {
    // Even under a certificate that says zero.
    refused(
        |c| {
            c.report.chip_id = [0; 64];
            let tcb = c.report.tcb.to_bytes();
            c.vcek.custom_extensions = statement("Genoa", tcb, &[0; 64]);
        },
        "CM-EVID-0017",
    );
}

#[test]
fn refuses_a_masked_key_and_an_unsigned_report() {
    refused(|c| c.report.key_info = 1 << 1, "CM-EVID-0014");
    refused(|c| c.report.key_info = 7 << 2, "CM-EVID-0014");
}

#[test]
fn refuses_a_product_that_is_not_the_certificates() {
    refused(|c| c.report.cpuid = [0x19, 0x01, 1], "CM-EVID-0015");
    accepted(|c| c.report.cpuid = [0x19, 0xa0, 2]);
}

#[test]
fn refuses_a_signature_by_another_key() {
    refused(|c| c.other_key = true, "CM-EVID-0018");
}

#[test]
fn refuses_signatures_out_of_range() {
    let (r, s) = (SIGNED_SIZE, SIGNED_SIZE + 72);
    assert_eq!((r, s), (0x2a0, 0x2e8));
    // Zero, and the order of the curve (all of 2^384 - 1 is above it).
    refused(|c| c.change = |b| b[0x2a0..0x2a0 + 48].fill(0), "CM-EVID-0018");
    refused(|c| c.change = |b| b[0x2e8..0x2e8 + 48].fill(0), "CM-EVID-0018");
    refused(|c| c.change = |b| b[0x2a0..0x2a0 + 48].fill(0xff), "CM-EVID-0018");
    refused(|c| c.change = |b| b[0x2e8..0x2e8 + 48].fill(0xff), "CM-EVID-0018");
    malformed(|c| c.change = |b| b[0x2a0 + 48] = 1, "CM-EVID-0004");
    malformed(|c| c.change = |b| b[0x2e8 + 71] = 1, "CM-EVID-0004");
    malformed(|c| c.change = |b| b[0x49f] = 1, "CM-EVID-0004");
}

#[test]
fn refuses_unknown_versions_and_processors() {
    for version in [0, 1, 6, u32::MAX] {
        let mut chip = Chip::honest();
        chip.report.version = version;
        let (report, table, _) = chip.bytes();
        let found = Record::snp(&report, &table, &chip.workload);
        let expected = EvidenceError::Report(ReportError::Version { found: version });
        assert_eq!(found.err(), Some(expected));
    }
    for version in [2, 3, 4] {
        let mut chip = Chip::honest();
        chip.report.version = version;
        chip.appraise().result().expect("an older version");
    }
    malformed(|c| c.report.cpuid = [0x1a, 0x50, 0], "CM-EVID-0005");
}

#[test]
fn refuses_missing_and_trailing_bytes() {
    let chip = Chip::honest();
    let (report, table, _) = chip.bytes();
    let record = |bytes: &[u8]| Record::snp(bytes, &table, &chip.workload);
    assert!(record(&report).is_ok());
    let longer = [report.as_slice(), &[0]].concat();
    for bytes in [&report[..1183], &longer, &[]] {
        assert_eq!(record(bytes).expect_err("refused").code(), "CM-EVID-0002");
    }
}

#[test]
fn refuses_reserved_bytes_that_are_not_zero() {
    malformed(|c| c.change = |b| b[0x4c] = 1, "CM-EVID-0004");
    malformed(|c| c.change = |b| b[0x190] = 1, "CM-EVID-0004");
    malformed(|c| c.change = |b| b[0x210] = 1, "CM-EVID-0004");
    malformed(|c| c.change = |b| b[0x182] = 1, "CM-EVID-0004");
    malformed(|c| c.change = |b| b[0x4b] = 1, "CM-EVID-0004");
    malformed(|c| c.change = |b| b[0x34] = 2, "CM-EVID-0004");
}

#[test]
fn refuses_certificates_outside_their_validity() {
    let chip = Chip::honest();
    let (record, tee) = chip.evidence();
    let at = |now| appraise(&record, &expect(), std::slice::from_ref(&tee), now);
    let (from, to) = (1_735_689_600, 2_051_222_400);
    assert!(at(from).result().is_ok() && at(to).result().is_ok());
    for now in [from - 1, to + 1, i64::MIN, i64::MAX, 0] {
        assert_eq!(at(now).result().expect_err("refused").code(), "CM-EVID-0013");
    }
    refused(|c| c.ark.not_after = date_time_ymd(2029, 1, 1), "CM-EVID-0013");
    refused(|c| c.ask.not_after = date_time_ymd(2029, 1, 1), "CM-EVID-0013");
    refused(|c| c.vcek.not_after = date_time_ymd(2029, 1, 1), "CM-EVID-0013");
}

#[test]
fn refuses_a_chain_that_is_none() {
    // Issuers that may not issue.
    refused(|c| c.ask = params("SEV-Test"), "CM-EVID-0012");
    refused(|c| c.ask.key_usages.clear(), "CM-EVID-0012");
    refused(|c| c.ark = issuer("ARK-Test", Some(0)), "CM-EVID-0012");
    // A chip key that may issue, or has no name of a chip key.
    refused(|c| c.vcek.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained), "CM-EVID-0012");
    refused(
        |c| {
            let extensions = std::mem::take(&mut c.vcek.custom_extensions);
            c.vcek = params("SEV-Other");
            c.vcek.custom_extensions = extensions;
        },
        "CM-EVID-0012",
    );
    // A provider's intermediate above a chip key.
    refused(|c| c.ask = issuer("SEV-VLEK-Test", Some(0)), "CM-EVID-0012");
}

#[test]
fn refuses_certificates_that_do_not_say_what_they_must() {
    for arcs in [&[2][..], &[3, 1], &[3, 5], &[3, 8], &[4]] {
        refused(
            |c| {
                let wanted = amd(arcs, Vec::new());
                let is = |e: &CustomExtension| e.oid_components().eq(wanted.oid_components());
                c.vcek.custom_extensions.retain(|e| !is(e));
            },
            "CM-EVID-0012",
        );
    }
    refused(|c| c.vcek.custom_extensions.push(amd(&[3, 9], integer(1))), "CM-EVID-0012");
    refused(|c| c.vcek.custom_extensions[0] = amd(&[2], ia5("Venice")), "CM-EVID-0012");
    refused(|c| c.vcek.custom_extensions[1] = amd(&[3, 1], vec![2, 2, 1, 10]), "CM-EVID-0012");
    refused(
        |c| {
            let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0]);
            unknown.set_criticality(true);
            c.vcek.custom_extensions.push(unknown);
        },
        "CM-EVID-0012",
    );
}

#[test]
fn a_providers_key_needs_no_chip_but_a_provider() {
    let provider = |c: &mut Chip| {
        c.ask = issuer("SEV-VLEK-Test", Some(0));
        let mut extensions = std::mem::take(&mut c.vcek.custom_extensions);
        extensions.pop();
        extensions.push(amd(&[5], ia5("CN=cloud.example")));
        c.vcek = params("SEV-VLEK");
        c.vcek.custom_extensions = extensions;
        c.leaf_kind = CertKind::Vlek;
        c.report.key_info = 1 << 2;
    };
    accepted(provider);
    refused(
        |c| {
            provider(c);
            c.vcek.custom_extensions.pop();
        },
        "CM-EVID-0012",
    );
    // A chip's certificate in the place of a provider's.
    refused(
        |c| {
            c.leaf_kind = CertKind::Vlek;
            c.report.key_info = 1 << 2;
        },
        "CM-EVID-0012",
    );
}

#[test]
fn refuses_another_root() {
    let (record, tee) = Chip::honest().evidence();
    let (_, other) = Chip::honest().evidence();
    let verdict = |tees: &[_]| appraise(&record, &expect(), tees, NOW);
    assert!(verdict(&[other.clone(), tee.clone()]).result().is_ok(), "one of two");
    for tees in [&[other][..], &[]] {
        assert_eq!(verdict(tees).result().expect_err("refused").code(), "CM-EVID-0010");
    }
    let root = common::issuer("ARK-Other", None);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("key");
    let root = root.self_signed(&key).expect("root").der().to_vec();
    refused(|c| c.table_root = Some(root.clone()), "CM-EVID-0010");
}

#[test]
fn refuses_a_simulated_root_that_the_trust_file_calls_amds() {
    refused(|c| c.tee.kind = TeeKind::Snp, "CM-EVID-0019");
}

#[test]
fn refuses_a_table_without_the_certificate() {
    let chip = Chip::honest();
    let (report, _, tee) = chip.bytes();
    let record = Record::snp(&report, &[], &chip.workload).expect("record");
    let verdict = appraise(&record, &expect(), &[tee], NOW);
    assert_eq!(verdict.result().expect_err("refused").code(), "CM-EVID-0011");
}

#[test]
fn refuses_a_launch_that_is_not_the_agent_or_the_image() {
    refused(|c| c.report.measurement = Sha384::of(b"another"), "CM-EVID-0030");
    let image = Sha384::of(b"image");
    accepted(|c| {
        c.report.measurement = image;
        c.tee.launch = LaunchRule::Images(vec![Sha384::of(b"other"), image]);
    });
    refused(|c| c.tee.launch = LaunchRule::Images(vec![image]), "CM-EVID-0030");
}

#[test]
fn refuses_evidence_without_a_nonce_where_one_is_needed() {
    let mut chip = Chip::honest();
    for (purpose, accepted) in [
        (Purpose::SecretRelease, false),
        (Purpose::Attest, false),
        (Purpose::StatementKey, true),
        (Purpose::ServiceKey, true),
    ] {
        let measurement = chip.workload.measurement().expect("measurement");
        chip.report.report_data = report_data(purpose, b"", SPKI, &measurement);
        let verdict = chip.appraise_as(&Expect { purpose, nonce: None, spki: SPKI }, NOW);
        match verdict.result() {
            Ok(_) => assert!(accepted, "{purpose:?}"),
            Err(e) => assert_eq!((e.code(), accepted), ("CM-EVID-0031", false)),
        }
    }
}

#[test]
fn refuses_evidence_of_another_nonce_key_purpose_or_workload() {
    let chip = Chip::honest();
    let says = |expect: &Expect<'_>| {
        let error = chip.appraise_as(expect, NOW).result().expect_err("refused");
        assert_eq!(error.code(), "CM-EVID-0032");
        error.to_string()
    };
    let honest = expect();
    assert!(says(&Expect { nonce: Some(&[8; 32]), ..honest }).contains("another nonce"));
    assert!(says(&Expect { spki: b"other", ..honest }).contains("another key"));
    let other = Expect { purpose: Purpose::Attest, ..honest };
    assert!(says(&other).contains("another purpose"));
    refused(|c| c.workload.root = Sha256::of(b"one byte more"), "CM-EVID-0032");
    refused(|c| c.workload.spec = Sha256::of(b"one setting more"), "CM-EVID-0032");
}

#[test]
fn refuses_secrets_to_what_is_not_in_production_and_to_no_key() {
    let with = |production: bool, purpose: Purpose, spki: &'static [u8]| {
        let mut chip = Chip::honest();
        chip.workload.production = production;
        let measurement = chip.workload.measurement().expect("measurement");
        chip.report.report_data = report_data(purpose, &NONCE, spki, &measurement);
        let expect = Expect { purpose, nonce: Some(&NONCE), spki };
        chip.appraise_as(&expect, NOW).result().map(|_| ()).map_err(|e| e.code())
    };
    assert_eq!(with(true, Purpose::SecretRelease, SPKI), Ok(()));
    assert_eq!(with(false, Purpose::SecretRelease, SPKI), Err("CM-EVID-0033"));
    assert_eq!(with(false, Purpose::Attest, SPKI), Ok(()));
    assert_eq!(with(true, Purpose::SecretRelease, b""), Err("CM-EVID-0034"));
    assert_eq!(with(true, Purpose::Attest, b""), Ok(()));
}

#[test]
fn a_verifier_that_remembers_a_chain_still_checks_everything_else() {
    let verifier = Verifier::new();
    let chip = Chip::honest();
    let (record, tee) = chip.evidence();
    let tees = [tee];
    let (report, table, _) = chip.bytes();
    for _ in 0..3 {
        assert!(verifier.appraise(&record, &expect(), &tees, NOW).result().is_ok());
    }
    let code = |record: &Record, expect: &Expect<'_>, now| {
        verifier.appraise(record, expect, &tees, now).result().expect_err("refused").code()
    };
    assert_eq!(code(&record, &expect(), 0), "CM-EVID-0013");
    let replayed = Expect { nonce: Some(&[8; 32]), ..expect() };
    assert_eq!(code(&record, &replayed, NOW), "CM-EVID-0032");
    let stranger = Record::snp(&report, &table, &chip.workload).expect("record");
    assert_eq!(code(&stranger, &expect(), NOW), "CM-EVID-0010");
}

#[test]
fn refuses_records_that_are_none() {
    let honest = String::from_utf8(Chip::honest().evidence().0.to_json()).expect("text");
    assert!(Record::parse(honest.as_bytes()).is_ok());
    for (from, to) in [
        ("evidence-v1", "evidence-v2"),
        ("snp-report", "tdx-quote"),
        ("\"workload\":[", "\"workloads\":["),
        ("{\"__cmwc_t\"", "{\"x\":1,\"__cmwc_t\""),
        ("{\"__cmwc_t\"", "{\"__cmwc_t\":\"x\",\"__cmwc_t\""),
    ] {
        let altered = honest.replacen(from, to, 1);
        assert_ne!(altered, honest);
        let error = Record::parse(altered.as_bytes()).expect_err("refused");
        assert_eq!(error.code(), "CM-EVID-0001", "{from} to {to}");
    }
    let trailing = format!("{honest}x");
    assert!(Record::parse(trailing.as_bytes()).is_err());
    let large = vec![b' '; casemate_evidence::record::MAX_SIZE + 1];
    assert!(Record::parse(&large).is_err());
}

#[test]
fn inspects_a_record_and_a_raw_report_field_by_field() {
    let chip = Chip::honest();
    let (report, _, _) = chip.bytes();
    let has = |fields: &[(String, String)], name: &str, value: &str| {
        assert!(fields.iter().any(|(n, v)| n == name && v == value), "{name} = {value}");
    };
    let raw = casemate_evidence::inspect(&report).expect("report");
    has(&raw, "report.version", "5");
    has(&raw, "report.product", "Genoa");
    let record = casemate_evidence::inspect(&chip.evidence().0.to_json()).expect("record");
    has(&record, "workload.production", "true");
    has(&record, "certificates.vcek.subject", "CN=SEV-VCEK");
    assert!(casemate_evidence::inspect(b"neither").is_err());
}

#[track_caller]
fn accepted(change: impl FnOnce(&mut Chip)) {
    let mut chip = Chip::honest();
    change(&mut chip);
    if let Err(e) = chip.appraise().result() {
        panic!("{e}");
    }
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Chip), code: &str) {
    let mut chip = Chip::honest();
    change(&mut chip);
    let appraisal = chip.appraise();
    assert!(appraisal.claims.is_none());
    let error = appraisal.result().expect_err("accepted");
    assert_eq!(error.code(), code, "{error}");
}

#[track_caller]
fn malformed(change: impl FnOnce(&mut Chip), code: &str) {
    let mut chip = Chip::honest();
    change(&mut chip);
    let (report, table, _) = chip.bytes();
    let error = Record::snp(&report, &table, &chip.workload).expect_err("accepted");
    assert_eq!(error.code(), code, "{error}");
}
