//! The certificate table of an extended guest request (GHCB, section 4.1.8.1).
//!
//! A list of (GUID, offset, length), ended by a zero entry, then the certificates. Hosts put DER
//! or PEM into it, and entries of their own (Google's does), which are passed over. The table is
//! the host's and proves nothing by itself; still it is read strictly: every byte belongs to an
//! entry or is zero. What is used of it is verified up to a trusted root, and a root in it must be
//! that root.

/// Largest table that is read, in bytes.
pub const MAX_SIZE: usize = 64 << 10;

const ENTRY_SIZE: usize = 24;
const MAX_ENTRIES: usize = 32;

/// A table that is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// Larger than any table.
    #[error("{found} bytes, at most {MAX_SIZE} are read")]
    Size {
        /// Its size.
        found: usize,
    },
    /// No zero entry ends the list.
    #[error("no end of the list within {found} bytes and {MAX_ENTRIES} entries")]
    End {
        /// Size of the table.
        found: usize,
    },
    /// An entry points into the list, outside the table or into another entry.
    #[error("entry {index}: bytes {offset}+{length} overlap, or are outside of the table")]
    Range {
        /// Which entry.
        index: usize,
        /// Its offset.
        offset: u32,
        /// Its length.
        length: u32,
    },
    /// A kind of certificate is there twice.
    #[error("entry {index}: a second {}", kind.as_str())]
    Duplicate {
        /// Which entry.
        index: usize,
        /// The kind.
        kind: CertKind,
    },
    /// A byte that belongs to no entry is not zero.
    #[error("byte {offset:#x} belongs to no entry and is not zero")]
    Stray {
        /// Where.
        offset: usize,
    },
}

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertKind {
    /// AMD root key.
    Ark,
    /// The key between the root and a VCEK, or (then called ASVK) a VLEK.
    Ask,
    /// Versioned chip endorsement key.
    Vcek,
    /// Versioned loaded endorsement key.
    Vlek,
    /// Revocation list.
    Crl,
}

impl CertKind {
    const ALL: [Self; 5] = [Self::Ark, Self::Ask, Self::Vcek, Self::Vlek, Self::Crl];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ark => "ARK",
            Self::Ask => "ASK",
            Self::Vcek => "VCEK",
            Self::Vlek => "VLEK",
            Self::Crl => "CRL",
        }
    }

    /// Its GUID, in the byte order of the table (RFC 4122).
    pub const fn guid(self) -> [u8; 16] {
        match self {
            Self::Ark => 0xc0b406a4_a803_4952_9743_3fb6014cd0ae_u128,
            Self::Ask => 0x4ab7b379_bbac_4fe4_a02f_05aef327c782,
            Self::Vcek => 0x63da758d_e664_4564_adc5_f4b93be8accd,
            Self::Vlek => 0xa8074bc2_a25a_483e_aae6_39c045a0b8a1,
            Self::Crl => 0x92f81bc3_5811_4d3d_97ff_d19f88dc67ea,
        }
        .to_be_bytes()
    }
}

/// A well-formed certificate table: the bytes as received and where each certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertTable {
    raw: Box<[u8]>,
    entries: Vec<(CertKind, std::ops::Range<usize>)>,
}

impl CertTable {
    /// Reads a table; no bytes at all are a table without certificates.
    ///
    /// # Errors
    /// [`TableError`] with the entry at fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, TableError> {
        if bytes.len() > MAX_SIZE {
            return Err(TableError::Size { found: bytes.len() });
        }
        let mut entries = Vec::new();
        let mut used: Vec<std::ops::Range<usize>> = Vec::new();
        let list = list_of(bytes)?;
        let list_size = (list.len() + 1) * ENTRY_SIZE;
        for (index, (guid, offset, length)) in list.into_iter().enumerate() {
            let (start, size) = (offset as usize, length as usize);
            let range = start..start.saturating_add(size);
            let overlaps = |r: &std::ops::Range<usize>| r.start < range.end && range.start < r.end;
            if start < list_size || range.end > bytes.len() || used.iter().any(overlaps) {
                return Err(TableError::Range { index, offset, length });
            }
            used.push(range.clone());
            // The host may add entries of its own; they mean nothing here.
            if let Some(kind) = CertKind::ALL.into_iter().find(|k| k.guid() == guid) {
                if entries.iter().any(|(k, _)| *k == kind) {
                    return Err(TableError::Duplicate { index, kind });
                }
                entries.push((kind, range));
            }
        }
        let is_used = |at: &usize| used.iter().any(|r| r.contains(at));
        let tail = list_size.min(bytes.len())..bytes.len();
        match tail.into_iter().find(|at| bytes[*at] != 0 && !is_used(at)) {
            Some(offset) => Err(TableError::Stray { offset }),
            None => Ok(Self { raw: bytes.into(), entries }),
        }
    }

    /// A table of these certificates, in this order.
    ///
    /// # Errors
    /// If they are too large for a table, or a kind is there twice.
    pub fn build(certificates: &[(CertKind, &[u8])]) -> Result<Self, TableError> {
        let mut list = Vec::new();
        let mut body = Vec::new();
        let start = (certificates.len() + 1) * ENTRY_SIZE;
        for (kind, bytes) in certificates {
            let too_large = || TableError::Size { found: start + body.len() + bytes.len() };
            let offset = u32::try_from(start + body.len()).map_err(|_| too_large())?;
            let length = u32::try_from(bytes.len()).map_err(|_| too_large())?;
            list.extend_from_slice(&kind.guid());
            list.extend_from_slice(&offset.to_le_bytes());
            list.extend_from_slice(&length.to_le_bytes());
            body.extend_from_slice(bytes);
        }
        list.extend_from_slice(&[0; ENTRY_SIZE]);
        list.extend_from_slice(&body);
        Self::parse(&list)
    }

    /// The bytes as received.
    pub fn as_bytes(&self) -> &[u8] {
        &self.raw
    }

    /// The bytes of one kind of certificate, DER or PEM.
    pub fn find(&self, kind: CertKind) -> Option<&[u8]> {
        let (_, range) = self.entries.iter().find(|(k, _)| *k == kind)?;
        self.raw.get(range.clone())
    }

    /// Every certificate of known kind, in the table's order.
    pub fn iter(&self) -> impl Iterator<Item = (CertKind, &[u8])> {
        self.entries.iter().map(|(kind, range)| (*kind, &self.raw[range.clone()]))
    }
}

type ListEntry = ([u8; 16], u32, u32);

/// The entries before the zero entry.
fn list_of(bytes: &[u8]) -> Result<Vec<ListEntry>, TableError> {
    let mut list = Vec::new();
    if bytes.is_empty() {
        return Ok(list);
    }
    for entry in bytes.chunks_exact(ENTRY_SIZE).take(MAX_ENTRIES + 1) {
        if entry.iter().all(|b| *b == 0) {
            return Ok(list);
        }
        let (mut guid, mut offset, mut length) = ([0; 16], [0; 4], [0; 4]);
        guid.copy_from_slice(&entry[..16]);
        offset.copy_from_slice(&entry[16..20]);
        length.copy_from_slice(&entry[20..]);
        list.push((guid, u32::from_le_bytes(offset), u32::from_le_bytes(length)));
    }
    Err(TableError::End { found: bytes.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_put_in() {
        let table =
            CertTable::build(&[(CertKind::Ask, b"ask"), (CertKind::Vcek, b"vcek")]).expect("table");
        assert_eq!(table.find(CertKind::Ask), Some(&b"ask"[..]));
        assert_eq!(table.find(CertKind::Vcek), Some(&b"vcek"[..]));
        assert_eq!(table.find(CertKind::Ark), None);
        assert_eq!(table.iter().count(), 2);
    }

    #[test]
    fn no_bytes_are_a_table_without_certificates() {
        assert_eq!(CertTable::parse(b"").expect("empty").iter().count(), 0);
    }

    #[test]
    fn refuses_a_certificate_twice() {
        let twice = CertTable::build(&[(CertKind::Ask, b"a"), (CertKind::Ask, b"b")]);
        assert_eq!(twice, Err(TableError::Duplicate { index: 1, kind: CertKind::Ask }));
    }

    #[test]
    fn refuses_ranges_outside_and_overlapping_and_stray_bytes() {
        let honest = CertTable::build(&[(CertKind::Ask, b"a"), (CertKind::Vcek, b"bc")])
            .expect("table")
            .as_bytes()
            .to_vec();
        let change = |at: usize, to: u8| {
            let mut bytes = honest.clone();
            bytes[at] = to;
            CertTable::parse(&bytes)
        };
        assert!(matches!(change(16, 0), Err(TableError::Range { index: 0, .. })), "in the list");
        assert!(matches!(change(20, 200), Err(TableError::Range { index: 0, .. })), "outside");
        assert!(matches!(change(20, 2), Err(TableError::Range { index: 1, .. })), "overlap");
        assert!(matches!(change(44, 1), Err(TableError::Stray { .. })), "not covered");
        let trailing = [honest.as_slice(), &[1]].concat();
        assert!(matches!(CertTable::parse(&trailing), Err(TableError::Stray { .. })));
        let padded = [honest.as_slice(), &[0; 100]].concat();
        assert!(CertTable::parse(&padded).is_ok(), "page padding");
        assert!(matches!(CertTable::parse(&honest[..48]), Err(TableError::End { .. })));
        assert!(matches!(CertTable::parse(&[0; MAX_SIZE + 1]), Err(TableError::Size { .. })));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let _ = CertTable::parse(&bytes);
        }

        #[test]
        fn no_offsets_make_the_parser_panic(offset: u32, length: u32, extra in 0usize..200) {
            let mut bytes = CertKind::Ask.guid().to_vec();
            bytes.extend_from_slice(&offset.to_le_bytes());
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&vec![0; extra]);
            let _ = CertTable::parse(&bytes);
        }
    }
}
