//! Secrets, evidence, sealing keys and traffic, with real cryptography on both sides.

#![allow(unsafe_code)]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::FromRawFd as _;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use casemate_enclave::{EvidenceRequest, Exit, Relay, StartOptions, measure, prove, start};
use casemate_enclave_protocol::AgentClient;
use casemate_evidence::{Expect, Record, appraise};
use casemate_spec::binding::Purpose;
use casemate_spec::{Coded as _, Sha256, Sha384};
use common::{options, platform, run, tools};
use serde_json::{Value, json};

const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A broker with the real protocol and one grant, and a network that does what `attack` says.
struct Broker {
    key: EcdsaKeyPair,
    granted: Option<Sha384>,
    attack: Attack,
    nonce: Mutex<Option<[u8; 32]>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Attack {
    None,
    OtherKey,
    AlteredSecret,
    OtherNonce,
    SwappedSecrets,
    Silence,
}

impl Broker {
    fn new(granted: Option<Sha384>, attack: Attack) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("key");
        Self { key, granted, attack, nonce: Mutex::new(None) }
    }

    fn spki(&self) -> Vec<u8> {
        [&P256_PREFIX[..], self.key.public_key().as_ref()].concat()
    }

    fn release(&self, request: &Value) -> Value {
        let nonce = self.nonce.lock().expect("nonce").take().expect("a challenge first");
        let record = Record::parse(request["evidence"].as_str().expect("text").as_bytes());
        let record = record.expect("record");
        let spki = BASE64_STANDARD.decode(request["envelope_key"].as_str().expect("key"));
        let spki = spki.expect("base64");
        let expect = Expect { purpose: Purpose::SecretRelease, nonce: Some(&nonce), spki: &spki };
        let appraisal = appraise(&record, &expect, &[platform().accepted_tee()], now());
        let claims = appraisal.result().expect("the evidence of an honest enclave");
        assert!(claims.simulated && !claims.debug);
        if self.granted != Some(claims.measurement) {
            let message = format!("no grant for measurement {}", claims.measurement);
            return json!({"code": "CM-BROK-0404", "message": message, "fix": "grant it"});
        }
        let names: Vec<&str> =
            request["names"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
        let seal = |name: &str, value: &[u8]| {
            let aad = [nonce.as_slice(), name.as_bytes()].concat();
            casemate_envelope::seal(&spki, b"casemate-secret-v1", &aad, value).expect("sealing")
        };
        let mut secrets: Vec<Value> = names
            .iter()
            .map(|n| json!({"name": n, "envelope": seal(n, format!("value of {n}").as_bytes())}))
            .collect();
        if self.attack == Attack::SwappedSecrets {
            let first = secrets[0]["envelope"].take();
            secrets[0]["envelope"] = secrets[1]["envelope"].take();
            secrets[1]["envelope"] = first;
        }
        let sent = if self.attack == Attack::OtherNonce { [9; 32] } else { nonce };
        let response = json!({
            "nonce": BASE64_STANDARD.encode(sent),
            "measurement": claims.measurement,
            "secrets": secrets,
            "receipts": [],
        });
        let mut response = response.to_string();
        let signed = [b"casemate-release-v1\0", response.as_bytes()].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).expect("signing");
        if self.attack == Attack::AlteredSecret {
            response = response.replacen("\"ciphertext\":\"", "\"ciphertext\":\"AAAA", 1);
        }
        let key = match self.attack {
            Attack::OtherKey => Self::new(None, Attack::None).spki(),
            _ => self.spki(),
        };
        json!({
            "response": BASE64_STANDARD.encode(response),
            "signature": BASE64_STANDARD.encode(signature.as_ref()),
            "broker_key": BASE64_STANDARD.encode(key),
        })
    }
}

impl Relay for Broker {
    fn call(&self, service: &str, path: &str, body: &[u8]) -> Result<Vec<u8>, String> {
        assert_eq!(service, "broker");
        if self.attack == Attack::Silence {
            return Err("connection refused".into());
        }
        let answer = match path {
            "/v1/challenge" => {
                let nonce = [(now() % 251) as u8; 32];
                *self.nonce.lock().expect("nonce") = Some(nonce);
                json!({"nonce": BASE64_STANDARD.encode(nonce)})
            }
            "/v1/release" => self.release(&serde_json::from_slice(body).expect("json")),
            other => panic!("unexpected request {other}"),
        };
        Ok(answer.to_string().into_bytes())
    }
}

const SECRETS: &str = "[[secret]]\nname = \"db/password\"\nenv = \"PASSWORD\"\n\
                       [[secret]]\nname = \"tls.key\"\nfile = \"/run/secrets/tls.key\"\n";
const SCRIPT: &str =
    "echo $PASSWORD; cat /run/secrets/tls.key; echo; stat -c %a /run/secrets/tls.key;
    echo x > /run/secrets/tls.key || echo read-only";

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("before the end of time")
}

/// Options for a program with secrets, its broker, and what it measures as.
fn with_broker(script: &str, granted: bool, attack: Attack) -> (StartOptions, Arc<Broker>) {
    let text = format!("{}{SECRETS}", tools(&["/bin/cat", "/usr/bin/stat"]));
    let mut options = options(&text, &["/bin/sh", "-c", script]);
    let mut broker = Broker::new(None, attack);
    options.program.broker = Some(Sha256::of(&broker.spki()));
    if granted {
        broker.granted = Some(measure(&options.program).expect("measure").measurement);
    }
    let broker = Arc::new(broker);
    options.relay = Some(Arc::clone(&broker) as Arc<dyn Relay>);
    (options, broker)
}

#[test]
fn secrets_reach_the_program_they_are_granted_to() {
    let (options, _) = with_broker(SCRIPT, true, Attack::None);
    let output = run(options);
    assert_eq!(
        output.stdout, "value of db/password\nvalue of tls.key\n400\nread-only\n",
        "{output:?}"
    );
}

#[test]
fn secrets_are_refused_to_any_other_program_with_the_broker_s_own_words() {
    let (honest, broker) = with_broker("exit 0", true, Attack::None);
    assert_eq!(run(honest).exit, Exit::Code(0));
    let (mut other, _) = with_broker("exit 0 ", false, Attack::None);
    other.program.broker = Some(Sha256::of(&broker.spki()));
    other.relay = Some(broker as Arc<dyn Relay>);
    let error = start(other).expect_err("one byte of argv differs");
    assert_eq!(error.code(), "CM-BROK-0404");
    assert!(error.to_string().starts_with("no grant for measurement "), "{error}");
    assert_eq!(error.fix().as_deref(), Some("grant it"));
}

#[test]
fn secrets_are_refused_from_a_forged_altered_or_replayed_answer() {
    for (attack, code) in [
        (Attack::OtherKey, "CM-ENCL-0052"),
        (Attack::AlteredSecret, "CM-ENCL-0053"),
        (Attack::OtherNonce, "CM-ENCL-0054"),
        (Attack::SwappedSecrets, "CM-SEAL-0002"),
        (Attack::Silence, "CM-ENCL-0050"),
    ] {
        let (options, _) = with_broker("exit 0", true, attack);
        assert_eq!(start(options).expect_err(code).code(), code);
    }
}

#[test]
fn secrets_need_a_known_broker() {
    let (mut options, _) = with_broker("exit 0", false, Attack::None);
    options.program.broker = None;
    assert_eq!(start(options).expect_err("no broker").code(), "CM-ENCL-0020");
}

#[test]
fn evidence_alone_is_the_same_evidence() {
    let request =
        EvidenceRequest { purpose: Purpose::Attest, nonce: Some([5; 32]), spki: b"key".into() };
    let wanted = options("", &["true"]);
    let measured = measure(&wanted.program).expect("measure").measurement;
    let record = prove(wanted, request).expect("evidence");
    let record = Record::parse(&record).expect("record");
    let tees = [platform().accepted_tee()];
    let judge = |nonce: &[u8; 32], spki: &[u8]| {
        let expect = Expect { purpose: Purpose::Attest, nonce: Some(nonce), spki };
        appraise(&record, &expect, &tees, now()).result().map(|c| c.measurement).ok()
    };
    assert_eq!(judge(&[5; 32], b"key"), Some(measured));
    assert_eq!(judge(&[6; 32], b"key"), None);
    assert_eq!(judge(&[5; 32], b"other"), None);
}

#[test]
fn evidence_of_a_debuggable_enclave_is_refused() {
    let request =
        EvidenceRequest { purpose: Purpose::Attest, nonce: Some([5; 32]), spki: Vec::new() };
    let record = prove(options("[enclave]\nproduction = false\n", &["true"]), request);
    let record = Record::parse(&record.expect("evidence")).expect("record");
    let expect = Expect { purpose: Purpose::Attest, nonce: Some(&[5; 32]), spki: b"" };
    assert!(appraise(&record, &expect, &[platform().accepted_tee()], now()).result().is_err());
}

#[test]
fn nobody_gets_evidence_for_receiving_secrets() {
    let request =
        EvidenceRequest { purpose: Purpose::SecretRelease, nonce: Some([5; 32]), spki: vec![1] };
    let error = prove(options("", &["true"]), request).expect_err("the agent's own purpose");
    assert_eq!(error.code(), "CM-ENCL-0047");
    let request = EvidenceRequest { purpose: Purpose::Attest, nonce: None, spki: vec![1] };
    let error = prove(options("", &["true"]), request).expect_err("no nonce");
    assert_eq!(error.code(), "CM-ENCL-0047");
}

/// Options that run this very test binary inside, playing `role`.
fn inside(role: &str, text: &str) -> StartOptions {
    let own = std::env::current_exe().expect("own path");
    let text = text.replace("[enclave]\n", "");
    let text = format!("[enclave]\nenv = {{ ENCLAVE_TEST_ROLE = \"{role}\" }}\n{text}");
    let arguments = ["--ignored", "--exact", "role_of_a_child_process", "--nocapture"];
    let mut command = vec![own.to_str().expect("utf-8")];
    command.extend(arguments);
    options(&text, &command)
}

#[test]
fn a_program_asks_its_agent() {
    let wanted = inside("asks", "[enclave]\nattestation = true\n");
    let measured = measure(&wanted.program).expect("measure");
    let output = run(wanted);
    assert_eq!(output.exit, Exit::Code(0), "{output:?}");
    let line = |name: &str| {
        let found = output.stdout.lines().find_map(|l| l.split_once(&format!("{name}=")));
        found.map(|(_, value)| value.to_owned()).expect(name)
    };
    assert_eq!(line("measurement"), measured.measurement.to_string());
    assert_eq!(line("refused"), "CM-ENCL-0047");
    let record = Record::parse(line("record").as_bytes()).expect("record");
    let expect = Expect { purpose: Purpose::ServiceKey, nonce: None, spki: b"service" };
    let appraisal = appraise(&record, &expect, &[platform().accepted_tee()], now());
    assert_eq!(appraisal.result().expect("claims").measurement, measured.measurement);
    let again = run(inside("asks", "[enclave]\nattestation = true\n"));
    let key = line("key");
    assert!(again.stdout.contains(&format!("key={key}\n")), "the sealing key changed");
    let other = run(inside("asks", "[enclave]\nattestation = true\npass_env = [\"X\"]\n"));
    assert!(!other.stdout.contains(&key), "another workload got the same sealing key");
}

#[test]
fn a_program_without_attestation_has_no_agent() {
    assert!(run(inside("asks", "")).stdout.contains("no agent: CM-ENCL-0070"));
}

#[test]
fn serves_a_port_through_the_host() {
    for activation in [false, true] {
        let text =
            format!("[[listen]]\nport = 7\ntls = \"none\"\nsocket_activation = {activation}\n");
        let role = if activation { "serves fd" } else { "serves port" };
        let mut options = inside(role, &text);
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        options.listeners.insert(7, listener);
        let running = start(options).expect("start");
        for size in [1, 300_000] {
            let sent = vec![b'x'; size];
            let mut client = TcpStream::connect(address).expect("connect");
            let mut back = client.try_clone().expect("clone");
            let reader = std::thread::spawn(move || {
                let mut got = Vec::new();
                back.read_to_end(&mut got).expect("reading");
                got
            });
            client.write_all(&sent).expect("writing");
            client.shutdown(Shutdown::Write).expect("half-close");
            assert_eq!(reader.join().expect("reader").len(), size, "{role}");
        }
        running.signal(9).expect("signal");
        assert_eq!(running.wait().expect("wait"), Exit::Signal(9));
    }
}

#[test]
fn reaches_declared_peers_by_name_and_nothing_else() {
    let server = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = server.local_addr().expect("address").to_string();
    let echo = std::thread::spawn(move || {
        let (mut client, _) = server.accept().expect("accept");
        let mut got = String::new();
        client.read_to_string(&mut got).expect("reading");
        client.write_all(got.to_uppercase().as_bytes()).expect("writing");
    });
    let mut options =
        inside("calls", "[[connect]]\nhost = \"shout.example\"\nport = 80\ntls = \"none\"\n");
    options.dial.insert("shout.example:80".into(), address.clone());
    options.program.spec.enclave.env.insert("OTHER".into(), address);
    let output = run(options);
    echo.join().expect("echo");
    assert!(output.stdout.contains("got=HELLO"), "{output:?}");
    assert!(output.stdout.contains("other=refused"), "{output:?}");
}

#[test]
fn refuses_sockets_that_the_spec_does_not_name() {
    let mut options = options("", &["true"]);
    options.listeners.insert(7, TcpListener::bind("127.0.0.1:0").expect("bind"));
    assert_eq!(start(options).expect_err("not declared").code(), "CM-ENCL-0020");
}

#[test]
#[ignore = "played inside enclaves of other tests"]
fn role_of_a_child_process() {
    let role = std::env::var("ENCLAVE_TEST_ROLE").unwrap_or_default();
    match role.as_str() {
        "asks" => ask_the_agent(),
        "serves port" => echo_for_ever(&TcpListener::bind("0.0.0.0:7").expect("bind")),
        "serves fd" => {
            assert_eq!(std::env::var("LISTEN_FDS").as_deref(), Ok("1"));
            assert_eq!(std::env::var("LISTEN_PID"), Ok(std::process::id().to_string()));
            // SAFETY: the agent handed over descriptor 3 for us alone.
            echo_for_ever(&unsafe { TcpListener::from_raw_fd(3) });
        }
        "calls" => {
            let mut peer = TcpStream::connect("shout.example:80").expect("connect");
            peer.write_all(b"hello").expect("writing");
            peer.shutdown(Shutdown::Write).expect("half-close");
            let mut got = String::new();
            peer.read_to_string(&mut got).expect("reading");
            println!("\ngot={got}");
            let other = TcpStream::connect(std::env::var("OTHER").expect("address"));
            println!("other={}", if other.is_err() { "refused" } else { "reached" });
        }
        _ => {}
    }
}

fn ask_the_agent() {
    let client = match AgentClient::from_env() {
        Ok(client) => client,
        Err(e) => return println!("\nno agent: {}", e.code()),
    };
    let workload = client.workload().expect("workload");
    println!("\nmeasurement={}", workload.measurement().expect("measurement"));
    let record = client.evidence(Purpose::ServiceKey, None, b"service").expect("evidence");
    println!("record={}", String::from_utf8(record).expect("utf-8"));
    let refused = client.evidence(Purpose::SecretRelease, Some([1; 32]), b"mine");
    println!("refused={}", refused.expect_err("the agent's own").code());
    let key = client.sealing_key("data").expect("key");
    println!("key={}", BASE64_STANDARD.encode(*key));
    assert_ne!(*key, *client.sealing_key("other").expect("key"));
    assert!(client.sealing_key("").is_err());
}

fn echo_for_ever(listener: &TcpListener) {
    loop {
        let (mut client, _) = listener.accept().expect("accept");
        std::thread::spawn(move || {
            let mut out = client.try_clone().expect("clone");
            std::io::copy(&mut client, &mut out).expect("echo");
            out.shutdown(Shutdown::Write).expect("half-close");
        });
    }
}
