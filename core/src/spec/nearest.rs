//! "Did you mean".

/// Texts longer than this, in bytes, are nobody's typing error of a key or word.
const LONGEST: usize = 64;

/// The candidate that a slip of the finger would turn into `text`, if there is one.
pub(crate) fn nearest<'c>(
    text: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    if text.is_empty() || text.len() > LONGEST {
        return None;
    }
    let text = text.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&text, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= slips(candidate))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many slips a word of this length can hold and still be the word meant.
fn slips(word: &str) -> usize {
    (word.len() / 3).clamp(1, 3)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_is_found_and_another_word_is_not() {
        let keys = ["command", "cpus", "image", "tmpfs", "env_file"];
        for (text, near) in [
            ("comand", Some("command")),
            ("Command", Some("command")),
            ("cmmand", Some("command")),
            ("cpu", Some("cpus")),
            ("envfile", Some("env_file")),
            ("pineapple", None),
            ("", None),
        ] {
            assert_eq!(nearest(text, keys), near, "{text}");
        }
        assert_eq!(nearest(&"c".repeat(100_000), keys), None);
    }
}
