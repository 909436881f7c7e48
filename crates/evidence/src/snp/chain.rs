//! From a trusted root to the key that signs reports.
//!
//! ARK signs ASK, ASK signs VCEK (57230); or, for keys that AMD lends to a cloud provider, ARK
//! signs ASVK, ASVK signs VLEK. The last certificate also states for which processor family,
//! firmware and chip its key was derived. [`endorse`] verifies the chain once; what depends on
//! the time or on the report is asked of the [`Endorsement`] each time.

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, ParsedPublicKey};
use casemate_spec::Sha256;
use der::Decode;
use der::asn1::{Ia5StringRef, ObjectIdentifier, OctetStringRef};

use super::amd;
use super::certificate::Certificate;
use super::report::{Product, Report, SigningKey, TcbVersion};
use super::table::{CertKind, CertTable};

const PRODUCT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
const TCB: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3");
const HARDWARE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
const PROVIDER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.5");

/// A chain that does not lead from the root to a report key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The chain ends in another root.
    #[error("a chain to {found}")]
    Root {
        /// Where it ends.
        found: String,
    },
    /// A certificate is not in the table.
    #[error("no {} in the certificate table", kind.as_str())]
    Missing {
        /// Which one.
        kind: CertKind,
    },
    /// A certificate is malformed or says what it must not.
    #[error("{}: {problem}", kind.as_str())]
    Certificate {
        /// Which one.
        kind: CertKind,
        /// What is wrong with it.
        problem: String,
    },
    /// The report names no key that could be endorsed.
    #[error("a report that no key signed")]
    Unsigned,
}

/// A report key whose chain to a root has been verified.
#[derive(Debug)]
pub struct Endorsement {
    key: ParsedPublicKey,
    signing_key: SigningKey,
    product: Product,
    tcb: TcbVersion,
    hardware_id: Option<Vec<u8>>,
    provider: Option<String>,
    root: Sha256,
    certificate: Sha256,
    validity: [(CertKind, i64, i64); 3],
}

/// Verifies the chain from `root` to the VCEK or VLEK in `table`. A missing intermediate is taken
/// from AMD's own; it must still verify under `root`. Validity periods are not looked at here.
///
/// # Errors
/// [`ChainError`] with the certificate at fault.
pub fn endorse(
    root: &Certificate,
    table: &CertTable,
    signing_key: SigningKey,
) -> Result<Endorsement, ChainError> {
    let kind = match signing_key {
        SigningKey::Vcek => CertKind::Vcek,
        SigningKey::Vlek => CertKind::Vlek,
        SigningKey::None => return Err(ChainError::Unsigned),
    };
    let leaf = certificate(table, kind)?.ok_or(ChainError::Missing { kind })?;
    check_root(root, table)?;
    let intermediate = intermediate(root, table, &leaf, kind)?;
    let bad = |problem: &str| ChainError::Certificate { kind, problem: problem.into() };
    let expected_name = if kind == CertKind::Vcek { "SEV-VCEK" } else { "SEV-VLEK" };
    if leaf.common_name() != Some(expected_name) {
        return Err(bad(&format!("subject {}, expected CN={expected_name}", leaf.subject())));
    }
    if leaf.is_issuer() {
        return Err(bad("is marked as an issuer of certificates"));
    }
    if !leaf.is_signed_by(&intermediate) {
        return Err(bad(&format!("not signed by {}", intermediate.subject())));
    }
    let statement = Statement::read(&leaf).map_err(|problem| bad(&problem))?;
    match (kind, &statement.hardware_id, &statement.provider) {
        (CertKind::Vcek, Some(_), _) | (CertKind::Vlek, None, Some(_)) => {}
        (CertKind::Vcek, ..) => return Err(bad("no hardware id (hwID)")),
        _ => return Err(bad("a hardware id, or no provider (cspID)")),
    }
    let point = leaf.p384_point().ok_or_else(|| bad("its key is not on P-384"))?;
    let key = ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)
        .map_err(|_| bad("its key is not a point of P-384"))?;
    let period = |kind, certificate: &Certificate| {
        let (from, to) = certificate.validity();
        (kind, from, to)
    };
    Ok(Endorsement {
        key,
        signing_key,
        product: statement.product,
        tcb: statement.tcb,
        hardware_id: statement.hardware_id,
        provider: statement.provider,
        root: Sha256::of(root.as_der()),
        certificate: Sha256::of(leaf.as_der()),
        validity: [
            period(CertKind::Ark, root),
            period(CertKind::Ask, &intermediate),
            period(kind, &leaf),
        ],
    })
}

impl Endorsement {
    /// Whether the key signed the report's bytes as received.
    pub fn signed(&self, report: &Report) -> bool {
        self.key.verify_sig(report.signed_bytes(), &report.signature()).is_ok()
    }

    /// Which kind of key it is.
    pub const fn signing_key(&self) -> SigningKey {
        self.signing_key
    }

    /// The processor family the key was derived for.
    pub const fn product(&self) -> Product {
        self.product
    }

    /// The firmware the key was derived for.
    pub const fn tcb(&self) -> TcbVersion {
        self.tcb
    }

    /// The chip the key was derived for; none for a VLEK.
    pub fn hardware_id(&self) -> Option<&[u8]> {
        self.hardware_id.as_deref()
    }

    /// Whether `chip_id` of a report is this very chip.
    pub fn is_chip(&self, chip_id: &[u8; 64]) -> bool {
        let Some(id) = &self.hardware_id else { return false };
        let (chip, rest) = chip_id.split_at(id.len().min(64));
        chip == id && rest.iter().all(|b| *b == 0) && chip.iter().any(|b| *b != 0)
    }

    /// The cloud provider AMD lent the key to; none for a VCEK.
    pub fn provider(&self) -> Option<&str> {
        self.provider.as_deref()
    }

    /// SHA-256 of the root certificate.
    pub const fn root(&self) -> Sha256 {
        self.root
    }

    /// SHA-256 of the certificate of the key.
    pub const fn certificate(&self) -> Sha256 {
        self.certificate
    }

    /// First and last second (Unix time) of each certificate: root, intermediate, key.
    pub const fn validity(&self) -> &[(CertKind, i64, i64); 3] {
        &self.validity
    }
}

/// The root must be a root, and the one in the table, if any, must be this one.
fn check_root(root: &Certificate, table: &CertTable) -> Result<(), ChainError> {
    if !root.names_issuer(root) || !root.may_issue(1) || !root.is_signed_by(root) {
        let problem = format!("{} is no self-signed root", root.subject());
        return Err(ChainError::Certificate { kind: CertKind::Ark, problem });
    }
    match certificate(table, CertKind::Ark)? {
        Some(other) if other.as_der() != root.as_der() => Err(ChainError::Root {
            found: format!("{} (sha256 {})", other.subject(), Sha256::of(other.as_der())),
        }),
        _ => Ok(()),
    }
}

/// The certificate between `root` and `leaf`, verified.
fn intermediate(
    root: &Certificate,
    table: &CertTable,
    leaf: &Certificate,
    leaf_kind: CertKind,
) -> Result<Certificate, ChainError> {
    let kind = CertKind::Ask;
    let bad = |problem: String| ChainError::Certificate { kind, problem };
    let found = match certificate(table, kind)? {
        Some(found) => found,
        None => amds_own(leaf).ok_or(ChainError::Missing { kind })?,
    };
    if !leaf.names_issuer(&found) {
        return Err(bad(format!("{}, expected {}", found.subject(), leaf.issuer())));
    }
    if !found.names_issuer(root) {
        return Err(ChainError::Root { found: found.issuer() });
    }
    let for_provider = found.common_name().is_some_and(|n| n.starts_with("SEV-VLEK-"));
    if for_provider != (leaf_kind == CertKind::Vlek) {
        return Err(bad(format!("{} does not sign a {}", found.subject(), leaf_kind.as_str())));
    }
    if !found.may_issue(0) {
        return Err(bad(format!("{} may not issue certificates", found.subject())));
    }
    if !found.is_signed_by(root) {
        return Err(bad(format!("not signed by {}", root.subject())));
    }
    Ok(found)
}

/// AMD's own intermediate with the name of the leaf's issuer.
fn amds_own(leaf: &Certificate) -> Option<Certificate> {
    amd::PRODUCTS
        .into_iter()
        .flat_map(|p| [amd::ask(p), amd::asvk(p)])
        .filter_map(|der| Certificate::parse(der).ok())
        .find(|c| leaf.names_issuer(c))
}

fn certificate(table: &CertTable, kind: CertKind) -> Result<Option<Certificate>, ChainError> {
    let Some(bytes) = table.find(kind) else { return Ok(None) };
    let parsed = Certificate::parse(bytes)
        .map_err(|e| ChainError::Certificate { kind, problem: e.to_string() })?;
    Ok(Some(parsed))
}

/// What a VCEK or VLEK says about its key (57230, section 3).
struct Statement {
    product: Product,
    tcb: TcbVersion,
    hardware_id: Option<Vec<u8>>,
    provider: Option<String>,
}

impl Statement {
    fn read(leaf: &Certificate) -> Result<Self, String> {
        let text = |id, what: &str| match leaf.extension(id).map(Ia5StringRef::from_der) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text.as_str().to_owned())),
            Some(Err(e)) => Err(format!("{what}: {e}")),
        };
        let name = text(PRODUCT_NAME, "product name")?.ok_or("no product name")?;
        let product = match name.split('-').next() {
            Some("Milan") => Product::Milan,
            Some("Genoa" | "Bergamo" | "Siena") => Product::Genoa,
            Some("Turin") => Product::Turin,
            _ => return Err(format!("unknown product {name:?}")),
        };
        let tcb = tcb_of(leaf, product)?;
        let provider = text(PROVIDER, "provider")?;
        let size = product.chip_id_size();
        let hardware_id = match leaf.extension(HARDWARE_ID) {
            None => None,
            Some(raw) if raw.len() == size => Some(raw.to_vec()),
            // Newer certificates wrap the id in an OCTET STRING of its own.
            Some(wrapped) => match <&OctetStringRef>::from_der(wrapped) {
                Ok(inner) if inner.as_bytes().len() == size => Some(inner.as_bytes().to_vec()),
                _ => return Err(format!("hardware id is not of {size} bytes")),
            },
        };
        Ok(Self { product, tcb, hardware_id, provider })
    }
}

/// The eight bytes of a TCB version are eight extensions `…3704.1.3.N`, in an order that depends
/// on the product. All of them must be there, and no other.
fn tcb_of(leaf: &Certificate, product: Product) -> Result<TcbVersion, String> {
    let order: [u32; 8] = match product {
        Product::Turin => [9, 1, 2, 3, 5, 6, 7, 8],
        Product::Milan | Product::Genoa => [1, 2, 4, 5, 6, 7, 3, 8],
    };
    let mut bytes = [0; 8];
    for (byte, number) in bytes.iter_mut().zip(order) {
        let value = TCB.push_arc(number).ok().and_then(|id| leaf.extension(id));
        let value = value.ok_or_else(|| format!("no security version {number}"))?;
        *byte = u8::from_der(value).map_err(|e| format!("security version {number}: {e}"))?;
    }
    let others = |id: &ObjectIdentifier| {
        id.parent() == Some(TCB) && !order.iter().any(|n| TCB.push_arc(*n) == Ok(*id))
    };
    if let Some(id) = leaf.extension_ids().find(others) {
        return Err(format!("security version {id} is unknown for {}", product.as_str()));
    }
    TcbVersion::from_bytes(bytes, Some(product))
        .ok_or_else(|| format!("unknown security versions in {}", hex::encode(bytes)))
}
