//! From a file's text to a profile.

use std::collections::HashMap;

use super::calls::{self, Known};
use super::written::{Arg, File, Syscall, When};
use super::{Action, Condition, Kernel, Operator, Profile, Rule, errno};
use crate::spec::{Capability, ValueError};

/// The longest text that is read, in bytes: Docker's own has 18 KB.
pub const TEXT_LIMIT: usize = 1 << 20;
/// How many pairs of a call and a condition for it there may be: the kernel takes 4096
/// instructions (linux/bpf_common.h, `BPF_MAXINSNS`), and a condition takes two at least.
const PAIR_LIMIT: usize = 4096;
/// How many mistakes and unknown names are told.
const TOLD: usize = 20;

const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];
const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];
/// The runtime-spec's, each behind `SCMP_ARCH_`.
const ARCHITECTURES: &str = "X86_64 X86 X32 ARM AARCH64 LOONGARCH64 M68K MIPS MIPS64 MIPS64N32 \
    MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE RISCV64 S390 S390X SH SHEB PARISC PARISC64";
/// x86_64 in Docker's `includes` and `excludes`, where Go's names stand.
const OWN_ARCHITECTURE: &str = "amd64";

/// A profile, and what in its file has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The profile.
    pub profile: Profile,
    /// Names that are no system call's on any architecture that moat knows of, in the order of the
    /// file, 20 at most. The rules for them are nothing, as with other runtimes.
    pub unknown: Vec<String>,
}

/// What is wrong with a profile's file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// It is too long.
    #[error("{length} bytes, where a profile has {TEXT_LIMIT} at most")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// It is not JSON, or not of the form; the reason ends with line and column.
    #[error("{reason}")]
    Form {
        /// The parser's words.
        reason: String,
    },
    /// A value is none that it may be.
    #[error("{at}: {problem}")]
    Value {
        /// Where: `syscalls[3].args[0].op`.
        at: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// It has more conditions than any filter can hold.
    #[error("more than {PAIR_LIMIT} conditions of calls: the kernel takes no such filter")]
    TooMany,
}

/// Reads a profile for a workload that has `capabilities` at most. `name` is the file's, as shown.
///
/// # Errors
/// Every mistake, 20 at most.
pub fn read(name: &str, text: &[u8], capabilities: &[Capability]) -> Result<Read, Vec<Mistake>> {
    if text.len() > TEXT_LIMIT {
        return Err(vec![Mistake::TooLong { length: text.len() }]);
    }
    let file: File = serde_json::from_slice(text)
        .map_err(|error| vec![Mistake::Form { reason: error.to_string() }])?;
    let mut reader = Reader {
        capabilities,
        names: calls::names(),
        mistakes: Vec::new(),
        unknown: Vec::new(),
        pairs: 0,
    };
    let profile = reader.profile(name, &file);
    match profile {
        Some(profile) if reader.mistakes.is_empty() => {
            Ok(Read { profile, unknown: reader.unknown })
        }
        _ => Err(reader.mistakes),
    }
}

struct Reader<'a> {
    capabilities: &'a [Capability],
    names: HashMap<&'static str, Known>,
    mistakes: Vec<Mistake>,
    unknown: Vec<String>,
    pairs: usize,
}

impl Reader<'_> {
    fn profile(&mut self, name: &str, file: &File) -> Option<Profile> {
        let errno = (file.default_errno_ret, file.default_errno.as_deref());
        let default = self.action("default", &file.default_action, errno);
        self.architectures(file);
        if file.listener_path.is_some() {
            self.wrong("listenerPath", "moat has no agent that decides about calls");
        }
        let (mut log, mut speculation) = (false, false);
        for (index, flag) in file.flags.iter().flatten().enumerate() {
            match flag.as_str() {
                "SECCOMP_FILTER_FLAG_LOG" => log = true,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => speculation = true,
                // There is one thread, and nobody who is told of calls.
                "SECCOMP_FILTER_FLAG_TSYNC" | "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => {}
                other => self.none_of(format!("flags[{index}]"), "flag", other, &FLAGS),
            }
        }
        let mut rules = Vec::new();
        for (index, call) in file.syscalls.iter().flatten().enumerate() {
            self.syscall(&format!("syscalls[{index}]"), call, &mut rules);
            if self.pairs > PAIR_LIMIT {
                self.tell(Mistake::TooMany);
                return None;
            }
        }
        Some(Profile { name: name.to_owned(), default: default?, rules, log, speculation })
    }

    fn syscall(&mut self, at: &str, call: &Syscall, rules: &mut Vec<Rule>) {
        let names = self.calls(at, call);
        let errno = (call.errno_ret, call.errno.as_deref());
        let action = self.action(at, &call.action, errno);
        let args = call.args.as_deref().unwrap_or_default();
        // Each is looked at, so that the mistakes of all are told.
        let conditions: Vec<Option<Condition>> =
            args.iter().enumerate().map(|(index, arg)| self.condition(at, index, arg)).collect();
        let conditions: Option<Vec<Condition>> = conditions.into_iter().collect();
        let nothing = When::default();
        let includes = call.includes.as_ref().unwrap_or(&nothing);
        let excludes = call.excludes.as_ref().unwrap_or(&nothing);
        let (in_at, ex_at) = (format!("{at}.includes"), format!("{at}.excludes"));
        // All that is included must be there, and nothing that is excluded.
        let included = self.held(&in_at, includes).into_iter().all(|held| held)
            && here(includes).unwrap_or(true);
        let excluded = self.held(&ex_at, excludes).into_iter().any(|held| held)
            || here(excludes).unwrap_or(false);
        let since = self.kernel(&in_at, includes);
        let before = self.kernel(&ex_at, excludes);
        let (Some(action), Some(conditions)) = (action, conditions) else {
            return;
        };
        if !included || excluded || names.is_empty() {
            return;
        }
        self.pairs += names.len() * conditions.len();
        let rule = |conditions| Rule { calls: names.clone(), action, conditions, since, before };
        let mut seen = [false; 6];
        let twice = conditions.iter().any(|condition| {
            let seen = seen.get_mut(usize::from(condition.argument));
            seen.is_some_and(|seen| std::mem::replace(seen, true))
        });
        if twice {
            // Runtimes take several conditions on one argument as alternatives, all of the list.
            rules.extend(conditions.into_iter().map(|condition| rule(vec![condition])));
        } else {
            rules.push(rule(conditions));
        }
    }

    /// The numbers of a rule's calls.
    fn calls(&mut self, at: &str, call: &Syscall) -> Vec<u32> {
        if call.name.is_some() && call.names.is_some() {
            self.wrong(at, "has both name and names; keep one");
        }
        let names = call.names.iter().flatten().chain(&call.name);
        let mut numbers = Vec::new();
        for name in names {
            match self.names.get(name.as_str()) {
                Some(Known::Number(number)) => numbers.push(*number),
                Some(Known::Elsewhere) => {}
                None if self.unknown.len() < TOLD && !self.unknown.contains(name) => {
                    self.unknown.push(shortened(name));
                }
                None => {}
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    fn action(
        &mut self,
        at: &str,
        action: &str,
        errno: (Option<u32>, Option<&str>),
    ) -> Option<Action> {
        let (action_key, errno_key) = if at == "default" {
            ("defaultAction".to_owned(), "defaultErrnoRet".to_owned())
        } else {
            (format!("{at}.action"), format!("{at}.errnoRet"))
        };
        match action {
            "SCMP_ACT_ALLOW" => Some(Action::Allow),
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Some(Action::KillThread),
            "SCMP_ACT_KILL_PROCESS" => Some(Action::KillProcess),
            "SCMP_ACT_LOG" => Some(Action::Log),
            "SCMP_ACT_TRAP" => Some(Action::Trap),
            // What the kernel keeps of an error: linux/err.h, MAX_ERRNO.
            "SCMP_ACT_ERRNO" => self.errno(errno_key, errno, 4095).map(Action::Errno),
            "SCMP_ACT_TRACE" => self.errno(errno_key, errno, u16::MAX).map(Action::Trace),
            "SCMP_ACT_NOTIFY" => {
                self.wrong(
                    action_key,
                    "SCMP_ACT_NOTIFY needs an agent that decides, and moat has none",
                );
                None
            }
            other => {
                self.none_of(action_key, "action", other, &ACTIONS);
                None
            }
        }
    }

    /// An error's number; `EPERM` where there is none, as with other runtimes.
    fn errno(
        &mut self,
        at: String,
        (number, name): (Option<u32>, Option<&str>),
        most: u16,
    ) -> Option<u16> {
        match (name, number) {
            (None | Some(""), None) => Some(1),
            (None | Some(""), Some(number)) => {
                let number = u16::try_from(number).ok().filter(|number| *number <= most);
                if number.is_none() {
                    self.wrong(&*at, format!("out of range: 0 to {most}"));
                }
                number
            }
            // Podman's name stands above the number beside it.
            (Some(name), _) => {
                let number = errno::by_name(name);
                if number.is_none() {
                    self.wrong(&*at, format!("unknown error {:?}", shortened(name)));
                }
                number
            }
        }
    }

    fn condition(&mut self, at: &str, index: usize, arg: &Arg) -> Option<Condition> {
        let at = format!("{at}.args[{index}]");
        let argument = u8::try_from(arg.index).ok().filter(|argument| *argument < 6);
        if argument.is_none() {
            self.wrong(
                format!("{at}.index"),
                format!("{}, where a call has arguments 0 to 5", arg.index),
            );
        }
        let (operator, value) = match arg.op.as_str() {
            "SCMP_CMP_EQ" => (Operator::Equal, arg.value),
            "SCMP_CMP_NE" => (Operator::NotEqual, arg.value),
            "SCMP_CMP_LT" => (Operator::Less, arg.value),
            "SCMP_CMP_LE" => (Operator::LessOrEqual, arg.value),
            "SCMP_CMP_GT" => (Operator::Greater, arg.value),
            "SCMP_CMP_GE" => (Operator::GreaterOrEqual, arg.value),
            // The first value is the mask (seccomp_rule_add(3)).
            "SCMP_CMP_MASKED_EQ" => {
                (Operator::MaskedEqual(arg.value), arg.value_two.unwrap_or_default())
            }
            other => {
                self.none_of(format!("{at}.op"), "operator", other, &OPERATORS);
                return None;
            }
        };
        Some(Condition { argument: argument?, operator, value })
    }

    /// Which of the named capabilities the workload has.
    fn held(&mut self, at: &str, when: &When) -> Vec<bool> {
        let mut held = Vec::new();
        for (index, name) in when.caps.iter().flatten().enumerate() {
            match name.parse() {
                Ok(capability) => held.push(self.capabilities.contains(&capability)),
                Err(error) => {
                    self.wrong(format!("{at}.caps[{index}]"), shortened(&error.to_string()));
                }
            }
        }
        held
    }

    fn kernel(&mut self, at: &str, when: &When) -> Option<Kernel> {
        let text = when.min_kernel.as_deref().filter(|text| !text.is_empty())?;
        let kernel = text.parse().ok();
        if kernel.is_none() {
            let text = shortened(text);
            self.wrong(
                format!("{at}.minKernel"),
                format!("{text:?} is not a version such as \"4.8\""),
            );
        }
        kernel
    }

    fn architectures(&mut self, file: &File) {
        let listed = file.architectures.iter().flatten().enumerate();
        let listed = listed.map(|(index, name)| (format!("architectures[{index}]"), name));
        let mapped = file.arch_map.iter().flatten().enumerate().flat_map(|(index, map)| {
            let names = std::iter::once(&map.architecture);
            let names = names.chain(map.sub_architectures.iter().flatten());
            names.map(move |name| (format!("archMap[{index}]"), name))
        });
        for (at, name) in listed.chain(mapped) {
            let known = |name: &str| ARCHITECTURES.split_ascii_whitespace().any(|one| one == name);
            if !name.strip_prefix("SCMP_ARCH_").is_some_and(known) {
                let name = shortened(name);
                self.wrong(
                    at,
                    format!("unknown architecture {name:?}, such as \"SCMP_ARCH_X86_64\""),
                );
            }
        }
    }

    fn none_of(&mut self, at: String, what: &'static str, written: &str, known: &[&str]) {
        let error = ValueError::unknown(what, &shortened(written), known);
        let help = error.help().unwrap_or_default();
        self.wrong(at, format!("{error}; {help}"));
    }

    fn wrong(&mut self, at: impl Into<String>, problem: impl Into<String>) {
        self.tell(Mistake::Value { at: at.into(), problem: problem.into() });
    }

    fn tell(&mut self, mistake: Mistake) {
        if self.mistakes.len() < TOLD {
            self.mistakes.push(mistake);
        }
    }
}

/// Whether x86_64 is among the architectures, where there are any.
fn here(when: &When) -> Option<bool> {
    let arches = when.arches.as_deref().filter(|arches| !arches.is_empty())?;
    Some(arches.iter().any(|arch| arch == OWN_ARCHITECTURE))
}

/// A text of the file's for a message.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 64;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
