//! One X.509 certificate (RFC 5280) of an endorsement chain.
//!
//! The signature is verified over the bytes as received, never over a re-encoding.

use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_ASN1, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey, VerificationAlgorithm,
};
use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Encode, Reader, SliceReader, Tag, Tagged};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};

/// Largest certificate that is read, in bytes.
pub const MAX_SIZE: usize = 16 << 10;

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");

/// A certificate that is malformed or of a kind that cannot be in a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CertificateError(String);

/// A well-formed certificate. Whether to believe it is another question.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Box<[u8]>,
    tbs: std::ops::Range<usize>,
    parsed: x509_cert::Certificate,
    constraints: Option<BasicConstraints>,
    usage: Option<KeyUsage>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("subject", &self.subject()).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads DER or PEM.
    ///
    /// # Errors
    /// [`CertificateError`] if it is malformed, not version 3, has bytes after it, an extension
    /// twice, or a critical extension of unknown meaning.
    pub fn parse(bytes: &[u8]) -> Result<Self, CertificateError> {
        if bytes.len() > MAX_SIZE {
            return Err(bad(format!("{} bytes, at most {MAX_SIZE} are read", bytes.len())));
        }
        if bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
            let (label, der) =
                der::pem::decode_vec(bytes.trim_ascii()).map_err(|e| bad(format!("PEM: {e}")))?;
            if label != "CERTIFICATE" {
                return Err(bad(format!("PEM of a {label:?}, expected CERTIFICATE")));
            }
            return Self::from_der(&der);
        }
        Self::from_der(bytes)
    }

    fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let asn1 = |e: der::Error| bad(format!("DER: {e}"));
        let parsed = x509_cert::Certificate::from_der(der).map_err(asn1)?;
        let content = AnyRef::from_der(der).map_err(asn1)?.value();
        let tbs = SliceReader::new(content).and_then(|mut r| r.tlv_bytes()).map_err(asn1)?;
        let start = der.len() - content.len();
        let mut certificate = Self {
            tbs: start..start + tbs.len(),
            der: der.into(),
            parsed,
            constraints: None,
            usage: None,
        };
        certificate.read_extensions()?;
        Ok(certificate)
    }

    fn read_extensions(&mut self) -> Result<(), CertificateError> {
        let tbs = self.parsed.tbs_certificate();
        if tbs.version() != x509_cert::Version::V3 {
            return Err(bad("not an X.509 version 3 certificate".into()));
        }
        if tbs.signature() != self.parsed.signature_algorithm() {
            return Err(bad("two different signature algorithms".into()));
        }
        let extensions = tbs.extensions().map_or(&[][..], Vec::as_slice);
        let (mut constraints, mut usage) = (None, None);
        for (i, extension) in extensions.iter().enumerate() {
            let id = extension.extn_id;
            if extensions[..i].iter().any(|e| e.extn_id == id) {
                return Err(bad(format!("extension {id} is there twice")));
            }
            let asn1 = |e: der::Error| bad(format!("extension {id}: {e}"));
            let value = extension.extn_value.as_bytes();
            match id {
                BASIC_CONSTRAINTS => {
                    constraints = Some(BasicConstraints::from_der(value).map_err(asn1)?);
                }
                KEY_USAGE => usage = Some(KeyUsage::from_der(value).map_err(asn1)?),
                _ if extension.critical => {
                    return Err(bad(format!("critical extension {id} is unknown")));
                }
                _ => {}
            }
        }
        (self.constraints, self.usage) = (constraints, usage);
        Ok(())
    }

    /// The certificate in DER, as received.
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// Its subject (RFC 4514).
    pub fn subject(&self) -> String {
        self.parsed.tbs_certificate().subject().to_string()
    }

    /// Its issuer (RFC 4514).
    pub fn issuer(&self) -> String {
        self.parsed.tbs_certificate().issuer().to_string()
    }

    /// Common name of its subject, if it has exactly one.
    pub fn common_name(&self) -> Option<&str> {
        let subject = self.parsed.tbs_certificate().subject();
        let mut names = subject.iter().filter(|a| a.oid == COMMON_NAME);
        match (names.next(), names.next()) {
            (Some(name), None) => std::str::from_utf8(name.value.value()).ok(),
            _ => None,
        }
    }

    /// First and last second of its validity, in Unix time.
    pub fn validity(&self) -> (i64, i64) {
        let validity = self.parsed.tbs_certificate().validity();
        let seconds = |time: x509_cert::time::Time| {
            i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
        };
        (seconds(validity.not_before), seconds(validity.not_after))
    }

    /// Whether its issuer bears the name of `issuer`.
    pub fn names_issuer(&self, issuer: &Self) -> bool {
        self.parsed.tbs_certificate().issuer() == issuer.parsed.tbs_certificate().subject()
    }

    /// Whether the key of `issuer` signed it.
    pub fn is_signed_by(&self, issuer: &Self) -> bool {
        let Some(signature) = self.parsed.signature().as_bytes() else { return false };
        let algorithm: &'static dyn VerificationAlgorithm =
            match (self.parsed.signature_algorithm().oid, issuer.key_algorithm()) {
                (RSASSA_PSS, Some(RSA)) => &RSA_PSS_2048_8192_SHA384,
                (ECDSA_SHA384, Some(EC)) => &ECDSA_P384_SHA384_ASN1,
                _ => return false,
            };
        UnparsedPublicKey::new(algorithm, issuer.key_bytes())
            .verify(&self.der[self.tbs.clone()], signature)
            .is_ok()
    }

    /// Whether it may issue certificates, with `below` further issuers under it.
    pub fn may_issue(&self, below: u8) -> bool {
        let constrained = self
            .constraints
            .as_ref()
            .is_some_and(|c| c.ca && c.path_len_constraint.is_none_or(|max| max >= below));
        constrained && self.usage.is_some_and(|u| u.0.contains(KeyUsages::KeyCertSign))
    }

    /// Whether it is marked as an issuer.
    pub fn is_issuer(&self) -> bool {
        self.constraints.as_ref().is_some_and(|c| c.ca)
    }

    /// The point of its P-384 key, uncompressed, if it has one.
    pub fn p384_point(&self) -> Option<&[u8]> {
        (self.key_algorithm() == Some(EC)).then(|| self.key_bytes())
    }

    /// The value of an extension, without its OCTET STRING.
    pub fn extension(&self, id: ObjectIdentifier) -> Option<&[u8]> {
        let extensions = self.parsed.tbs_certificate().extensions()?;
        Some(extensions.iter().find(|e| e.extn_id == id)?.extn_value.as_bytes())
    }

    /// Object identifiers of its extensions.
    pub fn extension_ids(&self) -> impl Iterator<Item = ObjectIdentifier> {
        let extensions = self.parsed.tbs_certificate().extensions();
        extensions.into_iter().flatten().map(|e| e.extn_id)
    }

    /// The algorithm of its key, if it is RSA or EC on P-384.
    fn key_algorithm(&self) -> Option<ObjectIdentifier> {
        let info = self.parsed.tbs_certificate().subject_public_key_info();
        match info.algorithm.oid {
            RSA => Some(RSA),
            EC => {
                let parameters = info.algorithm.parameters.as_ref()?;
                let curve = parameters.to_der().ok()?;
                (parameters.tag() == Tag::ObjectIdentifier
                    && ObjectIdentifier::from_der(&curve) == Ok(SECP384R1))
                .then_some(EC)
            }
            _ => None,
        }
    }

    fn key_bytes(&self) -> &[u8] {
        let info = self.parsed.tbs_certificate().subject_public_key_info();
        info.subject_public_key.as_bytes().unwrap_or_default()
    }
}

const fn bad(problem: String) -> CertificateError {
    CertificateError(problem)
}
