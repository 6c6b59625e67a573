//! What an attack told, and what that means.

use std::collections::BTreeSet;

/// What came of one thing that an attack tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It worked.
    Got,
    /// It was let in, and failed only for what was asked then: the kernel knew the caller's right.
    Past,
    /// It was refused.
    Refused,
    /// There is no such thing here.
    Absent,
}

impl Kind {
    const ALL: [(Self, &str); 4] = [
        (Self::Got, "got"),
        (Self::Past, "past"),
        (Self::Refused, "refused"),
        (Self::Absent, "absent"),
    ];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, word)| word)
    }
}

/// One thing that was tried, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// What came of it.
    pub(crate) kind: Kind,
    /// What was tried; the same words on both sides of the wall.
    pub(crate) what: String,
    /// What exactly happened.
    pub(crate) how: String,
}

impl Evidence {
    /// Seen by the host: it worked.
    pub(crate) fn got(what: &str, how: impl Into<String>) -> Self {
        Self { kind: Kind::Got, what: what.to_owned(), how: how.into() }
    }

    /// Seen by the host: it did not.
    pub(crate) fn refused(what: &str, how: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, what: what.to_owned(), how: how.into() }
    }

    /// Seen by the host: whether it worked.
    pub(crate) fn when(worked: bool, what: &str, how: impl Into<String>) -> Self {
        if worked { Self::got(what, how) } else { Self::refused(what, how) }
    }

    /// As a line of the attack's stdout.
    pub(crate) fn line(&self) -> String {
        let how = self.how.replace(['\n', '\0', '\t'], " ");
        format!("{}\t{}\t{how}\n", self.kind.word(), self.what)
    }

    /// The lines of an attack's stdout that are evidence.
    pub(crate) fn parse(stdout: &str) -> Vec<Self> {
        let parse = |line: &str| {
            let mut parts = line.trim_end().splitn(3, '\t');
            let word = parts.next()?;
            let kind = Kind::ALL.iter().find(|(_, known)| *known == word)?.0;
            let what = parts.next()?.to_owned();
            Some(Self { kind, what, how: parts.next().unwrap_or_default().to_owned() })
        };
        stdout.lines().filter_map(parse).collect()
    }

    fn shown(&self) -> String {
        format!("{}: {}", self.what, self.how)
    }
}

/// What one attack came to on both sides.
#[derive(Debug)]
pub(crate) struct Outcome {
    behind: Vec<Evidence>,
    open: Vec<Evidence>,
}

impl Outcome {
    pub(crate) fn of(behind: Vec<Evidence>, open: Vec<Evidence>) -> Self {
        Self { behind, open }
    }

    /// Whether moat held and the attack bites: `Some` with what this machine lacks when nothing of
    /// the attack could be shown to bite.
    ///
    /// # Errors
    /// What was got behind moat, or not got in the open.
    pub(crate) fn verdict(&self) -> Result<Option<String>, String> {
        let (behind, open) = (&self.behind, &self.open);
        let let_in = |evidence: &&Evidence| matches!(evidence.kind, Kind::Got | Kind::Past);
        let shown = || format!("\n--- behind moat\n{}--- open\n{}", lines(behind), lines(open));
        if let Some(hole) = behind.iter().find(let_in) {
            return Err(format!("a hole: {}{}", hole.shown(), shown()));
        }
        let tried: BTreeSet<_> = open.iter().map(|evidence| &evidence.what).collect();
        if behind.is_empty() || behind.iter().any(|evidence| !tried.contains(&evidence.what)) {
            return Err(format!("not all was tried on both sides{}", shown()));
        }
        if let Some(missed) = open.iter().find(|evidence| evidence.kind == Kind::Refused) {
            return Err(format!("does not bite: {}{}", missed.shown(), shown()));
        }
        if open.iter().any(|evidence| let_in(&evidence)) {
            return Ok(None);
        }
        let absent: Vec<_> = open.iter().map(Evidence::shown).collect();
        Ok(Some(format!("not on this machine, even when open: {}", absent.join(", "))))
    }

    /// As [`verdict`](Self::verdict), where it is known why it succeeds behind moat.
    ///
    /// # Errors
    /// When it does so no more, or does not bite.
    pub(crate) fn verdict_of_hole(&self, why: &str) -> Result<Option<String>, String> {
        let let_in = |evidence: &&Evidence| matches!(evidence.kind, Kind::Got | Kind::Past);
        if self.behind.is_empty() {
            return Ok(Some("moat does not run such a workload here".to_owned()));
        }
        if !self.behind.iter().any(|evidence| let_in(&evidence)) {
            return Err("no longer succeeds behind moat: take `hole` out of its case".to_owned());
        }
        let open = Self { behind: Vec::new(), open: self.open.clone() };
        match open.open.iter().find(|evidence| evidence.kind == Kind::Refused) {
            Some(missed) => Err(format!("does not bite: {}", missed.shown())),
            None => Ok(Some(format!("a known hole: {why}"))),
        }
    }

    /// How each side is told in the table: what happened, and to what.
    pub(crate) fn cells(&self) -> [String; 2] {
        [&self.behind, &self.open].map(|side| {
            let mut parts: Vec<(String, Vec<&str>)> = Vec::new();
            for evidence in side {
                let how = match evidence.kind {
                    Kind::Past => format!("{} past the door", evidence.how),
                    Kind::Absent => format!("{}, absent", evidence.how),
                    Kind::Got | Kind::Refused => evidence.how.clone(),
                };
                match parts.iter_mut().find(|(known, _)| *known == how) {
                    None => parts.push((how, vec![&evidence.what])),
                    Some((_, whats)) if whats.contains(&evidence.what.as_str()) => {}
                    Some((_, whats)) => whats.push(&evidence.what),
                }
            }
            let parts = parts.iter().map(|(how, whats)| format!("{}: {how}", whats.join(", ")));
            parts.collect::<Vec<_>>().join("; ")
        })
    }

    /// One word for each side: what the table begins with.
    pub(crate) fn words(&self) -> [&'static str; 2] {
        let got = |side: &[Evidence]| {
            side.iter().any(|evidence| matches!(evidence.kind, Kind::Got | Kind::Past))
        };
        let open = if got(&self.open) { "succeeds" } else { "not here" };
        [if got(&self.behind) { "HOLE" } else { "refused" }, open]
    }
}

fn lines(side: &[Evidence]) -> String {
    side.iter().map(Evidence::line).collect()
}
