//! The attestation report (56860, ATTESTATION_REPORT): 1184 bytes, of which 672 are signed.
//!
//! The parser is strict: exact size, known version, reserved bytes zero, a known processor. What
//! it does not know it refuses, because a field of unknown meaning cannot be appraised.

use casemate_spec::Sha384;
use serde::Serialize;

/// Size of a report.
pub const REPORT_SIZE: usize = 0x4a0;
/// Size of its signed part.
pub const SIGNED_SIZE: usize = 0x2a0;
/// Size of one little-endian integer of the signature.
const SCALAR_SIZE: usize = 72;

/// A report that is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// Shorter or longer than a report.
    #[error("{found} bytes, expected exactly {REPORT_SIZE}")]
    Size {
        /// Its size.
        found: usize,
    },
    /// A version whose layout is not known.
    #[error("version {found}, known are 2 to 5")]
    Version {
        /// What it says.
        found: u32,
    },
    /// A value no report can have.
    #[error("{field} at offset {offset:#x}: {problem}")]
    Field {
        /// The field.
        field: &'static str,
        /// Where it is.
        offset: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A processor whose security versions cannot be told apart.
    #[error("processor family {family:#04x} model {model:#04x}, known are Milan, Genoa and Turin")]
    Processor {
        /// Combined family.
        family: u8,
        /// Combined model.
        model: u8,
    },
}

impl ReportError {
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Size { .. } => "CM-EVID-0002",
            Self::Version { .. } => "CM-EVID-0003",
            Self::Field { .. } => "CM-EVID-0004",
            Self::Processor { .. } => "CM-EVID-0005",
        }
    }
}

/// A well-formed report: the bytes as received and what they say.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    raw: Box<[u8; REPORT_SIZE]>,
    fields: ReportFields,
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Report").field("fields", &self.fields).finish_non_exhaustive()
    }
}

impl Report {
    /// Reads a report of version 2 to 5.
    ///
    /// # Errors
    /// [`ReportError`] with the field at fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let raw: [u8; REPORT_SIZE] =
            bytes.try_into().map_err(|_| ReportError::Size { found: bytes.len() })?;
        let fields = ReportFields::read(&raw)?;
        for (field, offset) in [("signature r", SIGNED_SIZE), ("signature s", SIGNED_SIZE + 72)] {
            let scalar: [u8; SCALAR_SIZE] = at(&raw, offset);
            if scalar[48..].iter().any(|b| *b != 0) {
                return Err(field_error(field, offset, "longer than 384 bits".into()));
            }
        }
        zero(&raw, "signature padding", SIGNED_SIZE + 2 * SCALAR_SIZE, REPORT_SIZE)?;
        Ok(Self { raw: Box::new(raw), fields })
    }

    /// The bytes as received.
    pub fn as_bytes(&self) -> &[u8] {
        self.raw.as_slice()
    }

    /// The bytes that are signed.
    pub fn signed_bytes(&self) -> &[u8] {
        &self.raw[..SIGNED_SIZE]
    }

    /// What the report says. Not to be believed before its signature is verified.
    pub const fn fields(&self) -> &ReportFields {
        &self.fields
    }

    /// The signature as `r ‖ s`, each 48 bytes big-endian.
    pub fn signature(&self) -> [u8; 96] {
        let mut out = [0; 96];
        for (i, part) in out.chunks_exact_mut(48).enumerate() {
            part.copy_from_slice(&self.raw[SIGNED_SIZE + i * SCALAR_SIZE..][..48]);
            part.reverse();
        }
        out
    }
}

/// Everything a report says, typed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReportFields {
    /// Format version, 2 to 5.
    pub version: u32,
    /// Security version of the guest, from its ID block.
    pub guest_svn: u32,
    /// What the guest allows.
    pub policy: GuestPolicy,
    /// Family id of the guest, from its ID block.
    #[serde(with = "hex::serde")]
    pub family_id: [u8; 16],
    /// Image id of the guest, from its ID block.
    #[serde(with = "hex::serde")]
    pub image_id: [u8; 16],
    /// Privilege level that asked for the report; `u32::MAX` if the host did.
    pub vmpl: u32,
    /// Firmware in use.
    pub current_tcb: TcbVersion,
    /// How the platform is set up.
    pub platform_info: PlatformInfo,
    /// Which key signed.
    pub key_info: KeyInfo,
    /// The guest's 64 bytes.
    #[serde(with = "hex::serde")]
    pub report_data: [u8; 64],
    /// Launch measurement.
    pub measurement: Sha384,
    /// The host's 32 bytes.
    #[serde(with = "hex::serde")]
    pub host_data: [u8; 32],
    /// Digest of the key that signed the guest's ID block.
    pub id_key_digest: Sha384,
    /// Digest of the key that certified the ID key.
    pub author_key_digest: Sha384,
    /// Id of this guest on this chip.
    #[serde(with = "hex::serde")]
    pub report_id: [u8; 32],
    /// Id of its migration agent; all ones if none.
    #[serde(with = "hex::serde")]
    pub report_id_ma: [u8; 32],
    /// The firmware the signing key is derived for.
    pub reported_tcb: TcbVersion,
    /// Processor family and what follows from it; absent in version 2.
    pub product: Option<Product>,
    /// Combined family, model and stepping; absent in version 2.
    pub cpuid: Option<[u8; 3]>,
    /// Which chip; zero if the platform hides it.
    #[serde(with = "hex::serde")]
    pub chip_id: [u8; 64],
    /// Firmware that can no longer be rolled back.
    pub committed_tcb: TcbVersion,
    /// Firmware version in use.
    pub current: FirmwareVersion,
    /// Firmware version committed.
    pub committed: FirmwareVersion,
    /// Firmware in use when the guest was launched or imported.
    pub launch_tcb: TcbVersion,
    /// Mitigations verified at launch; from version 4.
    pub launch_mitigations: Option<u64>,
    /// Mitigations verified now; from version 4.
    pub current_mitigations: Option<u64>,
}

impl ReportFields {
    fn read(raw: &[u8; REPORT_SIZE]) -> Result<Self, ReportError> {
        let version = u32::from_le_bytes(at(raw, 0));
        if !(2..=5).contains(&version) {
            return Err(ReportError::Version { found: version });
        }
        let algorithm = u32::from_le_bytes(at(raw, 0x34));
        if algorithm != 1 {
            let problem = format!("{algorithm}, known is 1 (ECDSA P-384 with SHA-384)");
            return Err(field_error("signature algorithm", 0x34, problem));
        }
        for (from, to) in [(0x4c, 0x50), (0x18b, 0x1a0), (0x1eb, 0x1ec), (0x1ef, 0x1f0)] {
            zero(raw, "reserved bytes", from, to)?;
        }
        zero(raw, "reserved bytes", if version < 4 { 0x1f8 } else { 0x208 }, SIGNED_SIZE)?;
        let cpuid: [u8; 3] = at(raw, 0x188);
        let (product, cpuid) = if version == 2 {
            zero(raw, "reserved bytes", 0x188, 0x18b)?;
            (None, None)
        } else {
            (Some(Product::from_cpuid(cpuid)?), Some(cpuid))
        };
        // Version 2 is of Milan or Genoa, whose security versions have one layout.
        let tcb = |field, offset| TcbVersion::read(raw, field, offset, product);
        let mitigations = |offset| (version >= 4).then(|| u64::from_le_bytes(at(raw, offset)));
        Ok(Self {
            version,
            guest_svn: u32::from_le_bytes(at(raw, 4)),
            policy: GuestPolicy(u64::from_le_bytes(at(raw, 8))),
            family_id: at(raw, 0x10),
            image_id: at(raw, 0x20),
            vmpl: u32::from_le_bytes(at(raw, 0x30)),
            current_tcb: tcb("current TCB", 0x38)?,
            platform_info: PlatformInfo(u64::from_le_bytes(at(raw, 0x40))),
            key_info: KeyInfo::read(u32::from_le_bytes(at(raw, 0x48)))?,
            report_data: at(raw, 0x50),
            measurement: Sha384(at(raw, 0x90)),
            host_data: at(raw, 0xc0),
            id_key_digest: Sha384(at(raw, 0xe0)),
            author_key_digest: Sha384(at(raw, 0x110)),
            report_id: at(raw, 0x140),
            report_id_ma: at(raw, 0x160),
            reported_tcb: tcb("reported TCB", 0x180)?,
            product,
            cpuid,
            chip_id: at(raw, 0x1a0),
            committed_tcb: tcb("committed TCB", 0x1e0)?,
            current: FirmwareVersion::read(at(raw, 0x1e8)),
            committed: FirmwareVersion::read(at(raw, 0x1ec)),
            launch_tcb: tcb("launch TCB", 0x1f0)?,
            launch_mitigations: mitigations(0x1f8),
            current_mitigations: mitigations(0x200),
        })
    }

    /// Whether `report_id_ma` names a migration agent.
    pub fn has_migration_agent(&self) -> bool {
        self.report_id_ma != [0xff; 32] && self.report_id_ma != [0; 32]
    }
}

/// A processor family; it decides the layout of security versions and of the chip id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum Product {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004 and 8004, with Bergamo and Siena.
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl Product {
    /// Its name, as in certificates.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    fn from_cpuid([family, model, _]: [u8; 3]) -> Result<Self, ReportError> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Ok(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Ok(Self::Genoa),
            (0x1a, 0x00..=0x1f) => Ok(Self::Turin),
            _ => Err(ReportError::Processor { family, model }),
        }
    }

    /// How many bytes of the chip id identify the chip; the rest is zero.
    pub const fn chip_id_size(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => 64,
            Self::Turin => 8,
        }
    }
}

/// Security version of each component (56860, TCB_VERSION).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TcbVersion {
    /// FMC; Turin and later.
    pub fmc: Option<u8>,
    /// PSP boot loader.
    pub bootloader: u8,
    /// PSP operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode patch level.
    pub microcode: u8,
}

impl TcbVersion {
    fn read(
        raw: &[u8; REPORT_SIZE],
        field: &'static str,
        offset: usize,
        product: Option<Product>,
    ) -> Result<Self, ReportError> {
        let bytes: [u8; 8] = at(raw, offset);
        Self::from_bytes(bytes, product).ok_or_else(|| {
            let problem = format!("reserved bytes are not zero in {}", hex::encode(bytes));
            field_error(field, offset, problem)
        })
    }

    /// Reads the eight bytes of a report, of Milan or Genoa if no product is given; none if a
    /// reserved byte is not zero.
    pub fn from_bytes(bytes: [u8; 8], product: Option<Product>) -> Option<Self> {
        let [b0, b1, b2, b3, .., b6, b7] = bytes;
        let found = match product {
            Some(Product::Turin) => {
                Self { fmc: Some(b0), bootloader: b1, tee: b2, snp: b3, microcode: b7 }
            }
            _ => Self { fmc: None, bootloader: b0, tee: b1, snp: b6, microcode: b7 },
        };
        (found.to_bytes() == bytes).then_some(found)
    }

    /// The eight bytes of a report.
    pub const fn to_bytes(self) -> [u8; 8] {
        match self.fmc {
            Some(fmc) => [fmc, self.bootloader, self.tee, self.snp, 0, 0, 0, self.microcode],
            None => [self.bootloader, self.tee, 0, 0, 0, 0, self.snp, self.microcode],
        }
    }
}

impl std::fmt::Display for TcbVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(fmc) = self.fmc {
            write!(f, "fmc {fmc} ")?;
        }
        let Self { bootloader, tee, snp, microcode, .. } = self;
        write!(f, "bootloader {bootloader} tee {tee} snp {snp} microcode {microcode}")
    }
}

/// What the guest allows (56860, GUEST_POLICY).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GuestPolicy(pub u64);

impl GuestPolicy {
    /// Bits whose meaning is known.
    const KNOWN: u64 = 0x3ff_ffff;

    /// Whether simultaneous multithreading is allowed.
    pub const fn smt(self) -> bool {
        self.0 & 1 << 16 != 0
    }
    /// Whether a migration agent may be bound to the guest, which could then read all of it.
    pub const fn migration_agent(self) -> bool {
        self.0 & 1 << 18 != 0
    }
    /// Whether the host may read and write the guest's memory.
    pub const fn debug(self) -> bool {
        self.0 & 1 << 19 != 0
    }
    /// Whether the guest may run on one socket only.
    pub const fn single_socket(self) -> bool {
        self.0 & 1 << 20 != 0
    }
    /// Lowest ABI version (major, minor) the guest asks for.
    pub const fn abi(self) -> (u8, u8) {
        let [minor, major, ..] = self.0.to_le_bytes();
        (major, minor)
    }
    /// What no guest policy may be: the always-set bit 17 clear, or bits of unknown meaning.
    pub const fn is_unknown(self) -> bool {
        self.0 & 1 << 17 == 0 || self.0 & !Self::KNOWN != 0
    }
}

/// How the platform is set up (56860, PLATFORM_INFO).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PlatformInfo(pub u64);

impl PlatformInfo {
    /// Whether simultaneous multithreading is on.
    pub const fn smt(self) -> bool {
        self.0 & 1 != 0
    }
    /// Whether all memory is encrypted.
    pub const fn tsme(self) -> bool {
        self.0 & 1 << 1 != 0
    }
    /// Whether memory has error correction.
    pub const fn ecc(self) -> bool {
        self.0 & 1 << 2 != 0
    }
    /// Whether running-average power limits are off.
    pub const fn rapl_disabled(self) -> bool {
        self.0 & 1 << 3 != 0
    }
    /// Whether ciphertext in memory is hidden from the host.
    pub const fn ciphertext_hiding(self) -> bool {
        self.0 & 1 << 4 != 0
    }
    /// Whether memory was checked for aliases since the last reset.
    pub const fn alias_check(self) -> bool {
        self.0 & 1 << 5 != 0
    }
}

/// The key that signs a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SigningKey {
    /// Versioned chip endorsement key.
    Vcek,
    /// Versioned loaded endorsement key, which a cloud provider has from AMD.
    Vlek,
    /// None: the report is not signed.
    None,
}

impl SigningKey {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vcek => "VCEK",
            Self::Vlek => "VLEK",
            Self::None => "none",
        }
    }
}

/// Which key signed, and whether the guest's author was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    /// Whether `author_key_digest` has a value.
    pub author_key: bool,
    /// Whether the platform hides the chip's key.
    pub mask_chip_key: bool,
    /// Which key signed.
    pub signing_key: SigningKey,
}

impl KeyInfo {
    fn read(bits: u32) -> Result<Self, ReportError> {
        let problem = |text| field_error("key information", 0x48, text);
        if bits >> 5 != 0 {
            return Err(problem(format!("reserved bits are set in {bits:#x}")));
        }
        let signing_key = match bits >> 2 {
            0 => SigningKey::Vcek,
            1 => SigningKey::Vlek,
            7 => SigningKey::None,
            other => return Err(problem(format!("unknown signing key {other}"))),
        };
        Ok(Self { author_key: bits & 1 != 0, mask_chip_key: bits & 2 != 0, signing_key })
    }
}

/// A firmware version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FirmwareVersion {
    /// Major.
    pub major: u8,
    /// Minor.
    pub minor: u8,
    /// Build.
    pub build: u8,
}

impl FirmwareVersion {
    const fn read([build, minor, major]: [u8; 3]) -> Self {
        Self { major, minor, build }
    }
}

impl std::fmt::Display for FirmwareVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.build)
    }
}

/// `N` bytes at `offset`. Every offset in this file is a constant inside the report.
fn at<const N: usize>(raw: &[u8; REPORT_SIZE], offset: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&raw[offset..offset + N]);
    out
}

fn zero(
    raw: &[u8; REPORT_SIZE],
    field: &'static str,
    from: usize,
    to: usize,
) -> Result<(), ReportError> {
    match raw[from..to].iter().position(|b| *b != 0) {
        None => Ok(()),
        Some(i) => {
            let problem = format!("{:#04x}, must be zero", raw[from + i]);
            Err(field_error(field, from + i, problem))
        }
    }
}

const fn field_error(field: &'static str, offset: usize, problem: String) -> ReportError {
    ReportError::Field { field, offset, problem }
}
