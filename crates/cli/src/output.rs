//! Everything that reaches standard output and standard error, at most 80 columns wide.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the one place that prints")]

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

/// Columns that text is laid out for.
pub const WIDTH: usize = 80;

/// Whether something could not be written to standard output, other than to a reader who left.
static LOST: AtomicBool = AtomicBool::new(false);

/// Whether output was lost: a full disk, a device that failed. A reader who left wanted no more.
pub fn was_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// Notes a failed write. What a command does and how it ends never depends on who reads along.
fn note(result: std::io::Result<()>) {
    if result.is_err_and(|e| e.kind() != ErrorKind::BrokenPipe) {
        LOST.store(true, Ordering::Relaxed);
    }
}

/// One line on standard output.
pub fn line(text: &str) {
    note(writeln!(std::io::stdout().lock(), "{text}"));
}

/// Bytes on standard output, as they are.
pub fn raw(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    note(out.write_all(bytes).and_then(|()| out.flush()));
}

/// One JSON value on standard output.
pub fn json<T: Serialize>(value: &T) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(&text),
        Err(e) => error_line(&format!("casemate: output has no JSON form: {e}")),
    }
}

/// One line on standard error.
pub fn error_line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A named value on standard output: name in 16 columns, long values wrapped beneath. What is wider
/// than that column, such as a digest, has a line to itself.
pub fn field(name: &str, value: &str) {
    let mut label = name;
    for part in wrap(value, WIDTH - 18) {
        if part.chars().count() > WIDTH - 18 {
            if !label.is_empty() {
                line(&format!("  {label}"));
            }
            line(&format!("    {part}"));
        } else {
            line(&format!("  {label:<15} {part}"));
        }
        label = "";
    }
    if value.is_empty() {
        line(&format!("  {name:<15}"));
    }
}

/// A heading on standard output.
pub fn heading(text: &str) {
    line(&bold(text));
}

/// A check that passed or failed.
pub fn check(passed: bool, text: &str) {
    let mark = if passed { green("ok") } else { red("NO") };
    let mut mark_column = mark;
    for part in wrap(text, WIDTH - 5) {
        line(&format!("  {mark_column} {part}"));
        mark_column = "  ".into();
    }
}

/// `text` in pieces of at most `width` columns, broken at spaces. A longer word stays whole, so that
/// a digest can be copied.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let paragraph = plain(paragraph);
        let mut current = String::new();
        for word in paragraph.split(' ') {
            let used = current.chars().count();
            if used > 0 && used + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut current));
            } else if used > 0 {
                current.push(' ');
            }
            current.push_str(word);
        }
        lines.push(current);
    }
    lines
}

/// `text` with every control character made visible, so that no file name or file content can
/// move the cursor, clear the screen or forge a line.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() })
        .collect()
}

/// Colour only where a person looks at a terminal and has not asked for none.
fn paint(text: &str, code: &str) -> String {
    if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

/// Bold text.
pub fn bold(text: &str) -> String {
    paint(text, "1")
}

/// Green text.
pub fn green(text: &str) -> String {
    paint(text, "32")
}

/// Red text.
pub fn red(text: &str) -> String {
    paint(text, "31;1")
}

#[cfg(test)]
mod tests {
    use super::{plain, wrap};

    #[test]
    fn nothing_in_a_text_reaches_the_terminal_as_a_command() {
        assert_eq!(plain("a\u{1b}[2Jb\nACCEPTED"), "a\\u{1b}[2Jb\\nACCEPTED");
        assert!(wrap("\u{1b}[2J", 80).iter().all(|l| !l.contains('\u{1b}')));
    }

    #[test]
    fn wraps_at_spaces_and_keeps_long_words_whole() {
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("abcdefg", 3), ["abcdefg"]);
        assert_eq!(wrap("x abcdefg y", 3), ["x", "abcdefg", "y"]);
    }
}
