//! `moat kernel`

use comfy_table::{Table, presets};
use moat_core::diagnose::Fault;
use moat_microvm::kernel::{Bundle, Import, Store};
use serde_json::{Value, json};

use crate::Failure;
use crate::args::{Import as ImportArgs, Kernel};
use crate::host::Host;
use crate::output::Output;
use crate::progress::Shown;

/// Installs, imports, builds or lists guest kernels.
pub(crate) fn kernel(output: Output, verb: &Kernel) -> Result<u8, Failure> {
    let store = Host::open()?.kernels();
    let bundle = match verb {
        Kernel::Ls => return list(output, &store),
        Kernel::Install => install(output, &store)?,
        Kernel::Import(args) => import(output, &store, args)?,
        Kernel::Build { name } => {
            let mut shown = Shown::new(output);
            store.build(name, &mut |progress| shown.take(progress))?
        }
    };
    output.result(&row(&bundle, false), |_| described(&bundle))?;
    Ok(0)
}

/// Sees that there is a kernel to boot: installs one, saying so, when there is none and no name
/// was asked for.
pub(crate) fn ensure(
    output: Output,
    host: &Host,
    name: Option<&str>,
    offline: bool,
) -> Result<(), Fault> {
    let store = host.kernels();
    if name.is_some() || store.default_bundle()?.is_some() {
        return Ok(());
    }
    if offline {
        return Err(Fault::new(
            moat_core::diagnose::Code::Kernel,
            "no guest kernel is there, and --offline forbids to fetch one",
        )
        .hint("run `moat kernel install` while online, or `moat kernel import FILE`"));
    }
    output.note(
        "no guest kernel is there yet: installing the distribution's",
        || json!({ "installing": "kernel" }),
    );
    let bundle = install(output, &store)?;
    output.note(&described(&bundle), || row(&bundle, true));
    Ok(())
}

fn install(output: Output, store: &Store) -> Result<Bundle, Fault> {
    let mut shown = Shown::new(output);
    Ok(store.install(&mut |progress| shown.take(progress))?)
}

fn import(output: Output, store: &Store, args: &ImportArgs) -> Result<Bundle, Fault> {
    let mut shown = Shown::new(output);
    let import = Import {
        file: &args.file,
        modules: args.modules.as_deref(),
        name: args.name.as_deref(),
        discovery: args.discovery.into(),
    };
    Ok(store.import(&import, &mut |progress| shown.take(progress))?)
}

fn list(output: Output, store: &Store) -> Result<u8, Failure> {
    let default = store.default_bundle()?.map(|bundle| bundle.name().to_owned());
    let bundles = store.list()?;
    let is_default = |bundle: &Bundle| default.as_deref() == Some(bundle.name());
    let rows: Vec<Value> = bundles.iter().map(|bundle| row(bundle, is_default(bundle))).collect();
    output.result(&rows, |_| {
        if bundles.is_empty() {
            return "no guest kernel is there yet: `moat kernel install` fetches one".to_owned();
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["NAME", "VERSION", "FORMAT", "DISCOVERY", "MODULES", "SOURCE"]);
        for bundle in &bundles {
            let manifest = bundle.manifest();
            let mark = if is_default(bundle) { " (default)" } else { "" };
            table.add_row([
                format!("{}{mark}", bundle.name()),
                manifest.version.clone(),
                manifest.format.to_string(),
                manifest.discovery.to_string(),
                manifest.modules.len().to_string(),
                manifest.source.to_string(),
            ]);
        }
        table.trim_fmt()
    })?;
    Ok(0)
}

fn row(bundle: &Bundle, is_default: bool) -> Value {
    json!({ "default": is_default, "dir": bundle.dir(), "manifest": bundle.manifest() })
}

fn described(bundle: &Bundle) -> String {
    let manifest = bundle.manifest();
    format!("kernel {}: {} from {}", bundle.name(), manifest.version, manifest.source)
}
