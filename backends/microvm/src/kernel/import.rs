//! `Store::import`: a bundle from any kernel file.

use std::path::{Path, absolute};

use super::bundle::{Bundle, Source};
use super::store::{Ingredients, Store};
use super::{Error, Report};
use crate::boot::Discovery;

/// What is to become a bundle.
#[derive(Debug, Clone, Copy)]
pub struct Import<'a> {
    /// An ELF vmlinux or a bzImage.
    pub file: &'a Path,
    /// A directory as `/lib/modules/VERSION`; none when the kernel has all it needs built in.
    pub modules: Option<&'a Path>,
    /// The bundle's name; by default the file's.
    pub name: Option<&'a str>,
    /// How this kernel finds its devices; by default what its code shows.
    pub discovery: Option<Discovery>,
}

impl Store {
    /// Makes a bundle of a kernel file, in place of one of the same name.
    ///
    /// # Errors
    /// When the file is no kernel, a module that a guest needs is not there, or the bundle can't
    /// be written.
    pub fn import(&self, what: &Import<'_>, report: Report<'_>) -> Result<Bundle, Error> {
        let file_name = what.file.file_name().map(|name| name.to_string_lossy());
        let name = what.name.or(file_name.as_deref()).unwrap_or_default();
        self.place(name)?;
        let path = absolute(what.file).map_err(Error::io("read", what.file))?;
        let draft = self.draft(report)?;
        let ingredients = Ingredients {
            name,
            kernel: what.file,
            modules: what.modules,
            discovery: what.discovery,
            source: Source::File { path },
        };
        draft.finish(ingredients, report)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::ops::ControlFlow;

    use super::super::decompress::tests::lz4_legacy;
    use super::super::image::tests::{bzimage, tiny_elf};
    use super::super::{Progress, modules};
    use super::*;
    use crate::boot::KernelFormat;

    fn go_on(_: Progress<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn names(store: &Store) -> Vec<String> {
        store
            .list()
            .unwrap()
            .into_iter()
            .map(|entry| entry.bundle.unwrap().name().to_owned())
            .collect()
    }

    fn import(store: &Store, what: Import<'_>) -> Result<Bundle, Error> {
        store.import(&what, &mut go_on)
    }

    #[test]
    fn the_first_import_is_the_default_and_a_second_replaces_its_namesake() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::in_data_dir(data.path());
        assert!(store.list().unwrap().is_empty());
        assert!(matches!(store.find("default"), Err(Error::NoDefault { .. })));
        let file = data.path().join("vmlinuz-6.1");
        fs::write(&file, bzimage(&lz4_legacy(&tiny_elf()))).unwrap();
        let tree = modules::tests::tree();
        let what = Import {
            file: &file,
            modules: Some(tree.path()),
            name: None,
            discovery: Some(Discovery::Acpi),
        };
        let bundle = import(&store, what).unwrap();
        assert_eq!(bundle.name(), "vmlinuz-6.1");
        assert_eq!(fs::read(bundle.kernel_path()).unwrap(), tiny_elf());
        assert_eq!(bundle.module_paths().len(), 7);
        assert_eq!(store.find("default").unwrap(), bundle);

        fs::write(&file, bzimage(b"unknown")).unwrap();
        let other = Import { modules: None, discovery: None, ..what };
        let replaced = import(&store, other).unwrap();
        assert_eq!(replaced.manifest().format, KernelFormat::BzImage);
        assert!(replaced.kernel_path().ends_with("bzImage"));
        assert_eq!(names(&store), ["vmlinuz-6.1"]);
        let named = import(&store, Import { name: Some("second"), ..other }).unwrap();
        assert_eq!(store.find("default").unwrap(), replaced);
        store.set_default("second", &mut go_on).unwrap();
        assert_eq!(store.find("default").unwrap(), named);
        assert_eq!(store.remove("default", &mut go_on).unwrap(), "second");
        let Err(Error::NoDefault { others, .. }) = store.find("default") else { panic!() };
        assert_eq!((others, names(&store)), (vec!["vmlinuz-6.1".to_owned()], names(&store)));
        assert!(!replaced.dir().with_file_name("second").exists());
    }

    #[test]
    fn a_failed_import_leaves_nothing() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::in_data_dir(data.path());
        let file = data.path().join("script");
        fs::write(&file, "#!/bin/sh\n").unwrap();
        let what = Import { file: &file, modules: None, name: None, discovery: None };
        let error = import(&store, what).unwrap_err();
        assert!(error.to_string().starts_with("not a kernel: "), "{error}");
        fs::write(&file, tiny_elf()).unwrap();
        let what = Import { modules: Some(data.path()), ..what };
        assert!(matches!(import(&store, what), Err(Error::NoModule { .. })));
        assert!(store.list().unwrap().is_empty());
        let left: Vec<_> = fs::read_dir(data.path().join("kernels")).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "only the lock: {left:?}");
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::in_data_dir(data.path());
        let long = "x".repeat(65);
        for name in ["", ".", "..", "a/b", "/etc", ".hidden", "-x", "a b", "a\n", &long] {
            assert!(matches!(store.find(name), Err(Error::Name { .. })), "{name:?}");
            let what = Import {
                file: Path::new("/dev/null"),
                modules: None,
                name: Some(name),
                discovery: Some(Discovery::Acpi),
            };
            assert!(matches!(import(&store, what), Err(Error::Name { .. })), "{name:?}");
        }
        assert!(!data.path().join("kernels").exists());
    }

    #[test]
    fn what_a_killed_moat_left_is_not_seen_and_swept() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::in_data_dir(data.path());
        let left = data.path().join("kernels/.draft-123/bundle");
        fs::create_dir_all(&left).unwrap();
        assert!(store.list().unwrap().is_empty());
        let file = data.path().join("kernel");
        fs::write(&file, tiny_elf()).unwrap();
        let what = Import { file: &file, modules: None, name: None, discovery: None };
        import(&store, what).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn a_manifest_can_name_no_file_outside_its_bundle() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::in_data_dir(data.path());
        let file = data.path().join("kernel");
        fs::write(&file, tiny_elf()).unwrap();
        let what = Import { file: &file, modules: None, name: None, discovery: None };
        let bundle = import(&store, what).unwrap();
        let manifest = bundle.dir().join("manifest.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        let changed = text.replace("modules = []", "modules = [\"../../../etc/passwd\"]");
        fs::write(&manifest, changed).unwrap();
        assert!(matches!(store.find("kernel"), Err(Error::ManifestModule { .. })));
        fs::write(&manifest, text.replace("\"kernel\"", "\"other\"")).unwrap();
        assert!(matches!(store.find("kernel"), Err(Error::ManifestName { .. })));
        fs::write(&manifest, "\0").unwrap();
        assert!(matches!(store.find("kernel"), Err(Error::Manifest { .. })));
    }

    #[test]
    fn what_is_missing_or_cut_short_is_found_and_can_be_replaced_or_removed() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::in_data_dir(data.path());
        let file = data.path().join("kernel");
        fs::write(&file, tiny_elf()).unwrap();
        let tree = modules::tests::tree();
        let modules = Some(tree.path());
        let what = Import { file: &file, modules, name: None, discovery: Some(Discovery::Acpi) };
        let bundle = import(&store, what).unwrap();
        let damages: [&dyn Fn(&Bundle); 4] = [
            &|bundle| fs::write(bundle.kernel_path(), &tiny_elf()[1..]).unwrap(),
            &|bundle| fs::remove_file(bundle.kernel_path()).unwrap(),
            &|bundle| fs::remove_file(&bundle.module_paths()[3]).unwrap(),
            &|bundle| {
                fs::remove_file(&bundle.module_paths()[3]).unwrap();
                std::os::unix::fs::symlink("/dev/zero", &bundle.module_paths()[3]).unwrap();
            },
        ];
        for damage in damages {
            damage(&bundle);
            let found = store.find("default");
            assert!(matches!(found, Err(Error::Damaged { .. })), "{found:?}");
            assert!(store.list().unwrap()[0].bundle.is_err());
            assert_eq!(import(&store, what).unwrap(), bundle);
        }
        let mut other = tiny_elf();
        other[160] ^= 1;
        assert!(bundle.check_contents().is_ok());
        fs::write(bundle.kernel_path(), other).unwrap();
        assert!(matches!(bundle.check_contents(), Err(Error::Damaged { .. })));
        fs::write(bundle.dir().join("manifest.toml"), "").unwrap();
        assert_eq!(store.remove("kernel", &mut go_on).unwrap(), "kernel");
        assert!(store.list().unwrap().is_empty());
        assert!(matches!(store.remove("kernel", &mut go_on), Err(Error::NoSuchBundle { .. })));
    }

    #[test]
    fn an_interrupted_import_leaves_nothing() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::in_data_dir(data.path());
        let file = data.path().join("kernel");
        fs::write(&file, tiny_elf()).unwrap();
        let what = Import { file: &file, modules: None, name: None, discovery: None };
        let mut steps = 0;
        let error = store.import(&what, &mut |_| {
            steps += 1;
            if steps == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(error, Err(Error::Interrupted)), "{error:?}");
        let left: Vec<_> = fs::read_dir(data.path().join("kernels")).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "only the lock: {left:?}");
    }
}
