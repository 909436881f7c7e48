//! What an ELF file or a script says it needs. Nothing is executed.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use object::elf::{
    DT_NEEDED, DT_NULL, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, EM_X86_64, ET_DYN, ET_EXEC,
    FileHeader64,
};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};
use object::{LittleEndian, ReadCache, ReadRef};

/// Longest first line of a script that the kernel reads.
const MAX_SHEBANG: usize = 256;

/// Most libraries one file may name.
const MAX_NEEDED: usize = 4096;

/// What a file is to the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An ELF program or library for this machine.
    Elf(Elf),
    /// A script: its interpreter, and the interpreter's one argument.
    Script(String, Option<String>),
    /// Neither, and why.
    Other(String),
}

/// The dynamic part of an ELF file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Elf {
    /// The program interpreter (dynamic linker).
    pub(super) interpreter: Option<String>,
    /// Names of libraries.
    pub(super) needed: Vec<String>,
    /// Search path that libraries inherit.
    pub(super) rpath: Vec<String>,
    /// Search path of this file alone.
    pub(super) runpath: Vec<String>,
}

/// Reads what `path` needs.
pub(super) fn read(path: &Path) -> std::io::Result<Kind> {
    let mut file = File::open(path)?;
    let mut start = Vec::new();
    (&mut file).take(MAX_SHEBANG as u64).read_to_end(&mut start)?;
    if let Some(line) = start.strip_prefix(b"#!") {
        return Ok(parse_shebang(line));
    }
    if !start.starts_with(b"\x7fELF") {
        return Ok(Kind::Other("no ELF header and no #! line".into()));
    }
    let cache = ReadCache::new(file);
    Ok(match parse(&cache) {
        Ok(elf) => Kind::Elf(elf),
        Err(problem) => Kind::Other(problem),
    })
}

fn parse_shebang(line: &[u8]) -> Kind {
    let end = line.iter().position(|b| *b == b'\n').unwrap_or(line.len());
    let Ok(line) = std::str::from_utf8(&line[..end]) else {
        return Kind::Other("its #! line is not UTF-8".into());
    };
    let line = line.trim_matches([' ', '\t']);
    let (interpreter, argument) = match line.split_once([' ', '\t']) {
        Some((interpreter, rest)) => (interpreter, Some(rest.trim_start_matches([' ', '\t']))),
        None => (line, None),
    };
    if !interpreter.starts_with('/') {
        return Kind::Other(format!("its interpreter {interpreter:?} is no absolute path"));
    }
    Kind::Script(interpreter.into(), argument.map(Into::into))
}

fn parse<'data, R: ReadRef<'data>>(data: R) -> Result<Elf, String> {
    let header = FileHeader64::<LittleEndian>::parse(data)
        .map_err(|_| "its ELF header is not of a 64-bit little-endian machine".to_owned())?;
    let endian = header.endian().map_err(|e| e.to_string())?;
    if header.e_machine.get(endian) != EM_X86_64 {
        return Err(format!("it is for ELF machine {}", header.e_machine.get(endian)));
    }
    if !matches!(header.e_type.get(endian), ET_EXEC | ET_DYN) {
        return Err(format!("its ELF type is {}", header.e_type.get(endian)));
    }
    let segments = header.program_headers(endian, data).map_err(|e| e.to_string())?;
    let mut elf = Elf::default();
    for segment in segments {
        if let Some(name) = segment.interpreter(endian, data).map_err(|e| e.to_string())? {
            elf.interpreter = Some(text(name)?);
        }
        let Some(entries) = segment.dynamic(endian, data).map_err(|e| e.to_string())? else {
            continue;
        };
        let value = |tag: u32| {
            entries
                .iter()
                .take_while(|e| e.d_tag(endian) != u64::from(DT_NULL))
                .find(|e| e.d_tag(endian) == u64::from(tag))
                .map(|e| e.d_val(endian))
        };
        let (Some(at), Some(size)) = (value(DT_STRTAB), value(DT_STRSZ)) else { continue };
        let strings = segments
            .iter()
            .find_map(|s| s.data_range(endian, data, at, size).ok().flatten())
            .ok_or("its string table is outside the file")?;
        for entry in entries.iter().take_while(|e| e.d_tag(endian) != u64::from(DT_NULL)) {
            let list = match u32::try_from(entry.d_tag(endian)) {
                Ok(DT_NEEDED) => &mut elf.needed,
                Ok(DT_RPATH) => &mut elf.rpath,
                Ok(DT_RUNPATH) => &mut elf.runpath,
                _ => continue,
            };
            let start = usize::try_from(entry.d_val(endian)).unwrap_or(usize::MAX);
            let rest = strings.get(start..).ok_or("a name is outside its string table")?;
            let end = rest.iter().position(|b| *b == 0).ok_or("a name has no end")?;
            list.push(text(&rest[..end])?);
            if list.len() > MAX_NEEDED {
                return Err("it names too many libraries".into());
            }
        }
    }
    for list in [&mut elf.rpath, &mut elf.runpath] {
        *list = list.iter().flat_map(|p| p.split(':')).map(Into::into).collect();
    }
    if !elf.runpath.is_empty() {
        elf.rpath.clear();
    }
    Ok(elf)
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a name in it is not UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_dynamic_program_needs() {
        let Kind::Elf(elf) = read(Path::new("/bin/sh")).expect("reading") else {
            panic!("/bin/sh is no ELF")
        };
        assert!(elf.interpreter.is_some_and(|i| i.contains("ld-linux")));
        assert!(elf.needed.iter().any(|n| n.starts_with("libc.so")), "{:?}", elf.needed);
    }

    #[test]
    fn reads_scripts_as_the_kernel_does() {
        let script = |line: &str| parse_shebang(line.as_bytes());
        assert_eq!(script("/bin/sh\nx"), Kind::Script("/bin/sh".into(), None));
        assert_eq!(
            script(" /usr/bin/env  python3 -u \n"),
            Kind::Script("/usr/bin/env".into(), Some("python3 -u".into()))
        );
        assert!(matches!(script("sh\n"), Kind::Other(_)));
        assert!(matches!(script(""), Kind::Other(_)));
    }

    proptest::proptest! {
        #[test]
        fn no_altered_header_makes_the_parser_panic(at in 0usize..4096, byte: u8) {
            let mut bytes = std::fs::read("/bin/sh").expect("reading");
            bytes.truncate(64 << 10);
            bytes[at] = byte;
            let _ = parse(bytes.as_slice());
        }

        #[test]
        fn no_first_line_makes_the_parser_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = parse_shebang(&bytes);
        }
    }
}
