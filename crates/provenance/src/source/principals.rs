//! Principal patterns, as allowed-signers files have them.

/// Whether `email` is meant by `patterns`: at least one matches, and none that begins with `!`.
pub(super) fn matches(patterns: &[String], email: &str) -> bool {
    let mut allowed = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(negated) if glob(negated.as_bytes(), email.as_bytes()) => return false,
            Some(_) => {}
            None => allowed |= glob(pattern.as_bytes(), email.as_bytes()),
        }
    }
    allowed
}

/// `*` is any run of bytes, `?` any one byte. Linear in the product of both lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    p = at + 1;
                    t = from + 1;
                    star = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_like_ssh_does() {
        let list = |s: &str| s.split(',').map(str::to_owned).collect::<Vec<_>>();
        for (patterns, email, expected) in [
            ("a@x", "a@x", true),
            ("a@x", "A@x", false),
            ("*@x", "a@x", true),
            ("*@x", "a@xy", false),
            ("?@x", "ab@x", false),
            ("*", "", true),
            ("*@x,!eve@x", "eve@x", false),
            ("*@x,!eve@x", "bob@x", true),
            ("!eve@x", "bob@x", false),
            ("a*b*c", "aXbYbZc", true),
        ] {
            assert_eq!(matches(&list(patterns), email), expected, "{patterns} {email}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_star_matches_everything_and_text_matches_itself(text in "[a-z@.]{0,30}", rest: String) {
            assert!(matches(&["*".into()], &rest));
            assert!(matches(std::slice::from_ref(&text), &text));
        }
    }
}
