//! The tables of a workload, key by key.

use std::collections::{BTreeMap, BTreeSet};

use super::section::{Node, Section};
use super::{check, container, security};
use crate::spec::default::{ARGUMENT_LIMIT, CPUS, MEMORY, PIDS, SHM_SIZE, VCPUS};
use crate::spec::nearest::nearest;
use crate::spec::value::Quoted;
use crate::spec::written::{
    Healthcheck, IsolationTable, NetworkTable, ResourcesTable, Secret, VmTable, Workload,
};
use crate::spec::{
    Bytes, Condition, Cpus, Level, Name, Network, Resource, Rlimit, Unit, ValueError,
};

/// The longest label, in bytes.
const LABEL_LIMIT: usize = 4096;

/// Reads one workload. `at` is where its name stands, `names` are those of all workloads.
pub(super) fn workload(
    mut table: Section<'_, '_, '_>,
    at: usize,
    names: &BTreeSet<&str>,
) -> Workload {
    let t = &mut table;
    let written = Workload {
        image: t.parse("image", "\"host\""),
        rootfs: t.parse_at("rootfs", "\"./rootfs\""),
        oci: t.parse("oci", "\"./image.tar\""),
        entrypoint: arguments(t, "entrypoint"),
        command: arguments(t, "command"),
        working_dir: t.parse("working_dir", "\"/app\""),
        user: t.parse("user", "\"1000:1000\""),
        hostname: t.parse("hostname", "\"api\""),
        trust: t.parse("trust", "\"untrusted\""),
        labels: labels(t),
        env: environment(t),
        env_file: t.parse_list_at("env_file", "\".env\""),
        ports: t.parse_list("ports", "\"8080:8080\""),
        volumes: t.parse_list_at("volumes", "\"./src:/app/src:ro\""),
        tmpfs: t.parse_list_at("tmpfs", "\"/tmp:64MiB\""),
        shm_size: t.size("shm_size", "\"64MiB\"", &SHM_SIZE),
        read_only: t.boolean("read_only"),
        init: t.boolean("init"),
        tty: t.boolean("tty"),
        restart: t.parse("restart", "\"on-failure:3\""),
        stop_signal: t.parse("stop_signal", "\"SIGTERM\""),
        stop_timeout: t.duration("stop_timeout"),
        depends_on: depends_on(t, names),
        isolation: isolation(t.section("isolation")),
        resources: resources(t.section("resources")),
        network: network(t.section("network")),
        healthcheck: healthcheck(t),
        secrets: secrets(t),
        security: security::security(t.section("security")),
        rlimits: rlimits(t.section("rlimits")),
        vm: vm(t.section("vm")),
        container: container::container(t.section("container")),
    };
    check::workload(t, at, &written);
    table.finish();
    written
}

/// An array of arguments for execve(2).
fn arguments(t: &mut Section<'_, '_, '_>, key: &'static str) -> Option<Vec<String>> {
    let nodes = t.list(key, "[\"echo\", \"hello\"]")?;
    let arguments: Vec<_> = nodes.iter().map(|node| argument(t, node, "\"hello\"")).collect();
    arguments.into_iter().collect()
}

/// A string that execve(2) takes.
fn argument(t: &mut Section<'_, '_, '_>, node: &Node<'_>, example: &str) -> Option<String> {
    let text = node.string(t.report, example)?;
    if text.contains('\0') {
        return node.refuse(t.report, &ValueError::malformed(text, "an argument", "it holds NUL"));
    }
    if text.len() >= ARGUMENT_LIMIT {
        let (what, length, limit) = ("an argument", text.len(), ARGUMENT_LIMIT - 1);
        return node.refuse(t.report, &ValueError::TooLong { what, length, limit });
    }
    Some(text.to_owned())
}

fn labels(t: &mut Section<'_, '_, '_>) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for (name, node) in t.entries("labels")? {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b'-');
        if name.is_empty() || name.len() > 128 || !name.bytes().all(plain) {
            let help = "write letters, digits, . _ / -, at most 128 of them";
            let error = ValueError::malformed(name, "a label's name", help);
            t.report.add_value(node.key_at, &node.key, &error);
        }
        let Some(text) = node.string(t.report, "\"payments\"") else { continue };
        if text.len() > LABEL_LIMIT {
            let (what, length) = ("a label", text.len());
            let error = ValueError::TooLong { what, length, limit: LABEL_LIMIT };
            node.refuse::<()>(t.report, &error);
        }
        labels.insert(name.to_owned(), text.to_owned());
    }
    Some(labels)
}

fn environment(t: &mut Section<'_, '_, '_>) -> Option<BTreeMap<String, String>> {
    let mut env = BTreeMap::new();
    for (name, node) in t.entries("env")? {
        if name.is_empty() || name.contains(['=', '\0']) {
            let help = "it must not be empty, nor hold = or NUL";
            let error = ValueError::malformed(name, "a variable's name", help);
            t.report.add_value(node.key_at, &node.key, &error);
        }
        let Some(text) = argument(t, &node, "\"dev\"") else { continue };
        let length = name.len() + 1 + text.len();
        if length >= ARGUMENT_LIMIT {
            let (what, limit) = ("a variable", ARGUMENT_LIMIT - 1);
            node.refuse::<()>(t.report, &ValueError::TooLong { what, length, limit });
        }
        env.insert(name.to_owned(), text);
    }
    Some(env)
}

fn depends_on(
    t: &mut Section<'_, '_, '_>,
    names: &BTreeSet<&str>,
) -> Option<BTreeMap<Name, Condition>> {
    let mut conditions = BTreeMap::new();
    for (name, node) in t.entries("depends_on")? {
        if !names.contains(name) {
            let help = match nearest(name, names.iter().copied().take(100)) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "it must be in the same file".to_owned(),
            };
            let message = format!("no workload {}", Quoted(name));
            t.report.add_with_help(node.key_at, &node.key, message, help);
        }
        if let (Ok(name), Some(condition)) = (name.parse(), node.parse(t.report, "\"healthy\"")) {
            conditions.insert(name, condition);
        }
    }
    Some(conditions)
}

fn isolation(mut t: Section<'_, '_, '_>) -> IsolationTable {
    let written = IsolationTable {
        level: t.parse("level", "\"auto\""),
        min: t.parse("min", "\"container\""),
        objective: t.parse("objective", "\"security\""),
    };
    let asked = written.level.and_then(Level::isolation);
    if let (Some(asked), Some(min)) = (asked, written.min)
        && asked < min
    {
        let message = format!("\"{asked}\" is below isolation.min, which is \"{min}\"");
        t.wrong("level", message, format!("write level = \"{min}\", or lower min"));
    }
    t.finish();
    written
}

fn resources(mut t: Section<'_, '_, '_>) -> ResourcesTable {
    let written = ResourcesTable {
        cpus: t.take("cpus").and_then(|node| cpus(&mut t, &node)),
        memory: t.size("memory", "\"512MiB\"", &MEMORY),
        pids: t.integer("pids", PIDS),
    };
    t.finish();
    written
}

fn cpus(t: &mut Section<'_, '_, '_>, node: &Node<'_>) -> Option<Cpus> {
    let Some(text) = node.number() else {
        let help = node.text().filter(|text| text.parse::<Cpus>().is_ok());
        let help = help.map(|text| format!("write it without quotes: {text}"));
        return node.expected(t.report, "a number such as 2 or 0.5", help);
    };
    let range = || format!("{} to {}", CPUS.start(), CPUS.end());
    match text.parse::<Cpus>() {
        Ok(cpus) if CPUS.contains(&cpus) => Some(cpus),
        Ok(cpus) => node.refuse(t.report, &ValueError::range(&cpus, range())),
        Err(error) => node.refuse(t.report, &error),
    }
}

fn network(mut t: Section<'_, '_, '_>) -> NetworkTable {
    let written = NetworkTable { mode: t.parse("mode", "\"none\"") };
    if let Some(mode) = written.mode.as_ref().filter(|mode| **mode != Network::None) {
        t.value_not_yet("mode", mode, "only \"none\" is");
    }
    t.finish();
    written
}

fn healthcheck(parent: &mut Section<'_, '_, '_>) -> Option<Healthcheck> {
    let mut t = parent.section("healthcheck");
    let written = Healthcheck {
        command: arguments(&mut t, "command"),
        interval: t.duration("interval"),
        timeout: t.duration("timeout"),
        retries: t.integer("retries", 1..=1000),
        start_period: t.duration("start_period"),
    };
    t.finish();
    parent.not_yet("healthcheck");
    parent.offset("healthcheck").map(|_| written)
}

fn secrets(t: &mut Section<'_, '_, '_>) -> Option<BTreeMap<String, Secret>> {
    let entries = t.entries("secrets");
    if t.report.is_recording() {
        secret(Section::new(t.report, "secrets.NAME".to_owned(), None), 0);
    }
    t.not_yet("secrets");
    let mut secrets = BTreeMap::new();
    for (name, node) in entries? {
        let Some(table) = node.table(t.report) else { continue };
        let written = secret(Section::new(t.report, node.key, Some(table)), node.key_at);
        secrets.insert(name.to_owned(), written);
    }
    Some(secrets)
}

fn secret(mut t: Section<'_, '_, '_>, at: usize) -> Secret {
    let written = Secret {
        file: t.parse("file", "\"~/.secrets/db\""),
        env: t.take("env").and_then(|node| argument(&mut t, &node, "\"DB_PASSWORD\"")),
        command: arguments(&mut t, "command"),
    };
    let given = ["file", "env", "command"].iter().filter(|key| t.offset(key).is_some()).count();
    if given != 1 {
        let message = format!("expected exactly one of file, env, command, found {given}");
        let key = t.key.clone();
        t.report.add(at, &key, message);
    }
    t.finish();
    written
}

fn rlimits(mut t: Section<'_, '_, '_>) -> Vec<Rlimit> {
    let mut limits = Vec::new();
    for (name, resource) in Resource::ALL {
        let Some(node) = t.take(name) else { continue };
        let (soft, hard) = if let Some(table) = node.as_table() {
            let mut pair = Section::new(t.report, node.key.clone(), Some(table));
            let soft = pair.take("soft").map(|node| rlimit(&mut pair, resource, &node));
            let hard = pair.take("hard").map(|node| rlimit(&mut pair, resource, &node));
            pair.finish();
            let (Some(soft), Some(hard)) = (soft, hard) else {
                t.wrong(name, "expected both soft and hard", "write { soft = ..., hard = ... }");
                continue;
            };
            (soft, hard)
        } else {
            let limit = rlimit(&mut t, resource, &node);
            (limit, limit)
        };
        let (Some(soft), Some(hard)) = (soft, hard) else { continue };
        let limit = Rlimit { resource, soft, hard };
        if hard.is_some_and(|hard| soft.is_none_or(|soft| soft > hard)) {
            t.wrong(name, format!("{limit}: soft is above hard"), "raise hard, or lower soft");
        }
        limits.push(limit);
    }
    t.finish();
    limits
}

/// One limit, as its resource counts: `Some(None)` is without limit. 0 needs no unit.
fn rlimit(t: &mut Section<'_, '_, '_>, resource: Resource, node: &Node<'_>) -> Option<Option<u64>> {
    if node.text() == Some("unlimited") {
        return Some(None);
    }
    if resource.unit() == Unit::Count || node.number().as_deref() == Some("0") {
        // RLIM_INFINITY is the largest number of all; it is written "unlimited".
        return node.integer(t.report, 0..=u64::MAX - 1).map(Some);
    }
    let range = |value: &dyn std::fmt::Display| ValueError::range(value, "whole seconds");
    match resource.unit() {
        Unit::Count | Unit::Bytes => {
            let size: Bytes = node.parse(t.report, "\"8MiB\"")?;
            Some(Some(size.get()))
        }
        Unit::Seconds => {
            let duration = node.duration(t.report)?;
            if duration.subsec_nanos() != 0 {
                return node.refuse(t.report, &range(&node.text().unwrap_or_default()));
            }
            Some(Some(duration.as_secs()))
        }
        Unit::Micros => {
            let duration = node.duration(t.report)?;
            Some(u64::try_from(duration.as_micros()).ok())
        }
    }
}

fn vm(mut t: Section<'_, '_, '_>) -> VmTable {
    let written =
        VmTable { vcpus: t.integer("vcpus", VCPUS), kernel: t.parse("kernel", "\"default\"") };
    t.finish();
    written
}
