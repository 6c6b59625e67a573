//! `moat kernel`

use comfy_table::{Table, presets};
use moat_core::diagnose::{Code, Fault};
use moat_microvm::kernel::{Bundle, Entry, Error, Import, Store};
use serde_json::{Value, json};

use crate::Failure;
use crate::args::{Import as ImportArgs, Kernel};
use crate::host::Host;
use crate::output::Output;
use crate::progress::watched;

/// Installs, imports, builds, lists or removes guest kernels.
pub(crate) fn kernel(output: Output, verb: &Kernel) -> Result<u8, Failure> {
    let store = Host::open()?.kernels();
    let bundle = match verb {
        Kernel::Ls => return list(output, &store),
        Kernel::Rm { names } => return remove(output, &store, names),
        Kernel::Install => watched(output, |report| store.install(report))?,
        Kernel::Import(args) => import(output, &store, args)?,
        Kernel::Build { name } => watched(output, |report| store.build(name, report))?,
        Kernel::Default { name } => watched(output, |report| store.set_default(name, report))?,
    };
    let is_default = store.default_name()?.as_deref() == Some(bundle.name());
    output.result(&row(&bundle, is_default), |_| described(&bundle, is_default))?;
    Ok(0)
}

/// Sees that there is a kernel to boot: installs one, saying so, when there is none at all and no
/// name was asked for.
pub(crate) fn ensure(
    output: Output,
    host: &Host,
    name: Option<&str>,
    offline: bool,
) -> Result<(), Fault> {
    let store = host.kernels();
    match (name, store.find("default")) {
        (None, Err(Error::NoDefault { others, .. })) if others.is_empty() => {}
        // What is wrong with a bundle is said when it is planned with.
        _ => return Ok(()),
    }
    if offline {
        return Err(Fault::new(
            Code::Kernel,
            "no guest kernel is there, and --offline forbids to fetch one",
        )
        .hint("run `moat kernel install` while online, or `moat kernel import FILE`"));
    }
    output.note(
        "no guest kernel is there yet: installing the distribution's",
        || json!({ "installing": "kernel" }),
    );
    let bundle = watched(output, |report| store.install(report))?;
    output.note(&described(&bundle, true), || row(&bundle, true));
    Ok(())
}

fn import(output: Output, store: &Store, args: &ImportArgs) -> Result<Bundle, Fault> {
    let import = Import {
        file: &args.file,
        modules: args.modules.as_deref(),
        name: args.name.as_deref(),
        discovery: args.discovery.map(Into::into),
    };
    watched(output, |report| store.import(&import, report))
}

/// As many as can be; the first that can't is the error.
fn remove(output: Output, store: &Store, names: &[String]) -> Result<u8, Failure> {
    let mut removed = Vec::new();
    let mut failed = None;
    for name in names {
        match watched(output, |report| store.remove(name, report)) {
            Ok(name) => removed.push(name),
            Err(fault) => failed = failed.or(Some(fault)),
        }
    }
    if !removed.is_empty() {
        output.result(&removed, |removed| {
            removed.iter().map(|name| format!("removed {name}\n")).collect()
        })?;
    }
    failed.map_or(Ok(0), |fault| Err(fault.into()))
}

fn list(output: Output, store: &Store) -> Result<u8, Failure> {
    let default = store.default_name()?;
    let entries = store.list()?;
    let is_default = |entry: &Entry| default.as_ref() == Some(&entry.name);
    let rows: Vec<Value> = entries
        .iter()
        .map(|entry| match &entry.bundle {
            Ok(bundle) => row(bundle, is_default(entry)),
            Err(error) => json!({
                "name": entry.name,
                "default": is_default(entry),
                "dir": entry.dir,
                "broken": error.to_string(),
            }),
        })
        .collect();
    output.result(&rows, |_| {
        if entries.is_empty() {
            return "no guest kernel is there yet: `moat kernel install` fetches one".to_owned();
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["NAME", "VERSION", "FORMAT", "DISCOVERY", "MODULES", "SOURCE"]);
        for entry in &entries {
            let mark = if is_default(entry) { " (default)" } else { "" };
            let name = format!("{}{mark}", entry.name);
            let cells = match &entry.bundle {
                Ok(bundle) => cells(bundle),
                Err(error) => [
                    String::new(),
                    "broken".to_owned(),
                    String::new(),
                    String::new(),
                    error.to_string(),
                ],
            };
            table.add_row([name].into_iter().chain(cells));
        }
        table.trim_fmt()
    })?;
    Ok(0)
}

fn cells(bundle: &Bundle) -> [String; 5] {
    let manifest = bundle.manifest();
    [
        manifest.version.clone(),
        manifest.format.to_string(),
        manifest.discovery.to_string(),
        manifest.modules.len().to_string(),
        manifest.source.to_string(),
    ]
}

fn row(bundle: &Bundle, is_default: bool) -> Value {
    json!({
        "name": bundle.name(),
        "default": is_default,
        "dir": bundle.dir(),
        "manifest": bundle.manifest(),
    })
}

fn described(bundle: &Bundle, is_default: bool) -> String {
    let (name, manifest) = (bundle.name(), bundle.manifest());
    let mut text = format!("kernel {name}: {} from {}", manifest.version, manifest.source);
    if !is_default {
        text.push_str(&format!(
            "\nit is not the default: `moat kernel default {name}` makes it so"
        ));
    }
    text
}
