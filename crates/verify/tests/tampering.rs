//! A complete, valid bundle, altered byte by byte and field by field: what still reads as another
//! bundle is never accepted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use casemate_statement::bundle::ReleaseBundle;
use casemate_verify::Verifier;
use serde_json::Value;
use support::{NOW, World, hello};

/// Panics if `bytes` are accepted although they say something else than `honest`.
fn assert_not_accepted(
    verifier: &Verifier,
    bytes: &[u8],
    honest: &ReleaseBundle,
    world: &World,
    what: &str,
) {
    let Ok(bundle) = ReleaseBundle::parse(bytes) else { return };
    if bundle == *honest {
        return;
    }
    let verdict = verifier.verify_bundle(&bundle, &world.trust, NOW);
    assert!(!verdict.accepted, "accepted: {what}");
}

#[test]
fn refuses_a_bundle_altered_in_any_byte() {
    let mut world = World::new();
    let honest = world.released();
    let bytes = honest.to_bytes().unwrap();
    let verifier = &Verifier::new();
    assert!(verifier.verify_release(&hello(), &honest, &world.trust, NOW).accepted);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let (world, honest, bytes) = (&world, &honest, bytes.as_slice());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let mut altered = bytes.to_vec();
                for at in (thread..bytes.len()).step_by(threads) {
                    // another bit at each place; over the file every bit is flipped many times
                    let mask = 1 << (at % 7);
                    altered[at] ^= mask;
                    let what = format!("byte {at} ^ {mask}");
                    assert_not_accepted(verifier, &altered, honest, world, &what);
                    altered[at] = bytes[at];
                }
            });
        }
    });
}

#[test]
fn refuses_a_bundle_with_any_value_changed_or_removed() {
    let mut world = World::new();
    let honest = world.released();
    let verifier = Verifier::new();
    let json: Value = serde_json::from_slice(&honest.to_bytes().unwrap()).unwrap();
    let mut paths = Vec::new();
    collect(&json, String::new(), &mut paths);
    assert!(paths.len() > 200, "{} values", paths.len());
    for path in &paths {
        for replacement in [None, Some(Value::Null), Some(another(json.pointer(path).unwrap()))] {
            let mut altered = json.clone();
            replace(&mut altered, path, replacement);
            let bytes = serde_json::to_vec(&altered).unwrap();
            assert_not_accepted(&verifier, &bytes, &honest, &world, path);
        }
    }
}

#[test]
fn refuses_a_bundle_with_parts_repeated_or_added() {
    let mut world = World::new();
    let honest = world.released();
    let verifier = Verifier::new();
    let json: Value = serde_json::from_slice(&honest.to_bytes().unwrap()).unwrap();
    let mut paths = vec![String::new()];
    collect(&json, String::new(), &mut paths);
    for path in &paths {
        let mut altered = json.clone();
        match altered.pointer_mut(path).unwrap() {
            Value::Array(items) if !items.is_empty() => items.push(items[0].clone()),
            Value::Object(fields) => {
                fields.insert("extra".into(), Value::Bool(true));
            }
            _ => continue,
        }
        let bytes = serde_json::to_vec(&altered).unwrap();
        assert_not_accepted(&verifier, &bytes, &honest, &world, path);
    }
}

#[test]
fn refuses_a_field_that_occurs_twice() {
    let mut world = World::new();
    let bytes = world.released().to_bytes().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(ReleaseBundle::parse(text.as_bytes()).is_ok());
    for field in ["\"mediaType\"", "\"evidence\"", "\"__cmwc_t\"", "\"hashes\"", "\"sshsig\""] {
        let twice = text.replacen(field, &format!("{field}: \"x\", {field}"), 1);
        assert_ne!(twice, text);
        let refused = ReleaseBundle::parse(twice.as_bytes()).unwrap_err();
        assert!(refused.to_string().contains("twice"), "{refused}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn no_splice_of_a_bundle_panics_or_is_accepted(
        from in 0usize..20_000, to in 0usize..20_000, size in 1usize..400,
    ) {
        static WORLD: std::sync::OnceLock<(World, ReleaseBundle, Verifier)> = std::sync::OnceLock::new();
        let (world, honest, verifier) = WORLD.get_or_init(|| {
            let mut world = World::new();
            let bundle = world.released();
            (world, bundle, Verifier::new())
        });
        let bytes = honest.to_bytes().unwrap();
        let (from, to) = (from % (bytes.len() - size), to % (bytes.len() - size));
        let mut altered = bytes.clone();
        altered.splice(to..to + size, bytes[from..from + size].iter().copied());
        assert_not_accepted(verifier, &altered, honest, world, "splice");
        assert_not_accepted(verifier, &bytes[..from], honest, world, "cut");
    }
}

/// Every place in a document, as JSON pointers.
fn collect(value: &Value, path: String, paths: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
                paths.push(path.clone());
                collect(value, path, paths);
            }
        }
        Value::Array(items) => {
            for (at, value) in items.iter().enumerate() {
                let path = format!("{path}/{at}");
                paths.push(path.clone());
                collect(value, path, paths);
            }
        }
        _ => {}
    }
}

/// A value of the same kind that is another one.
fn another(value: &Value) -> Value {
    match value {
        Value::String(text) => match text.parse::<u64>() {
            Ok(number) => Value::String((number ^ 1).to_string()),
            // swapping the ends keeps base64 and hexadecimal valid
            Err(_) if text.len() > 8 => {
                let (a, b) = text.split_at(4);
                Value::String(format!("{}{a}{}", &b[..4], &b[4..]))
            }
            Err(_) => Value::String(format!("{text}x")),
        },
        Value::Number(_) => Value::from(7_777_777),
        Value::Array(items) => Value::Array(items.iter().rev().cloned().collect()),
        Value::Object(_) => Value::Object(serde_json::Map::new()),
        other => other.clone(),
    }
}

fn replace(json: &mut Value, path: &str, replacement: Option<Value>) {
    if let Some(replacement) = replacement {
        *json.pointer_mut(path).unwrap() = replacement;
        return;
    }
    let (parent, name) = path.rsplit_once('/').unwrap();
    match json.pointer_mut(parent).unwrap() {
        Value::Object(fields) => {
            fields.remove(&name.replace("~1", "/").replace("~0", "~"));
        }
        Value::Array(items) => {
            items.remove(name.parse().unwrap());
        }
        _ => {}
    }
}
