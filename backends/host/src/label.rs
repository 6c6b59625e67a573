//! The security modules of this host's kernel.

use std::fs;
use std::path::Path;

use moat_core::diagnose::{Code, Fault};
use moat_core::sandbox::Label;
use moat_core::spec::ContainerOptions;

/// The label that a container is to have.
///
/// # Errors
/// When the module that knows it is not active here: nothing would stand where it was asked for.
pub fn label(options: &ContainerOptions) -> Result<Label, Fault> {
    let label = match (&options.apparmor, &options.selinux) {
        (Some(profile), _) => Label::AppArmor(profile.clone()),
        (None, Some(label)) => Label::Selinux(label.clone()),
        (None, None) => Label::None,
    };
    let (active, what, hint) = match &label {
        Label::None => return Ok(label),
        Label::AppArmor(profile) => {
            // What aa-enabled(1) looks at.
            let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
            let enabled = enabled.is_ok_and(|enabled| enabled.trim() == "Y");
            let hint = "boot with `lsm=...,apparmor`, or take container.apparmor out of the spec";
            (enabled, format!("AppArmor profile {profile}: AppArmor"), hint)
        }
        Label::Selinux(label) => {
            // Mounted by whoever loads the policy (selinux(8)).
            let enabled = Path::new("/sys/fs/selinux/enforce").exists();
            let hint = "boot with `lsm=...,selinux`, or take container.selinux out of the spec";
            (enabled, format!("SELinux label {label}: SELinux"), hint)
        }
    };
    if active {
        return Ok(label);
    }
    Err(Fault::new(Code::Unavailable, format!("{what} is not active on this host")).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_of_a_module_that_is_not_there_is_refused() {
        assert_eq!(label(&ContainerOptions::default()).unwrap(), Label::None);
        let selinux = ContainerOptions {
            selinux: Some("system_u:system_r:container_t:s0".to_owned()),
            ..ContainerOptions::default()
        };
        match label(&selinux) {
            Ok(Label::Selinux(_)) => assert!(Path::new("/sys/fs/selinux/enforce").exists()),
            Ok(other) => panic!("{other:?}"),
            Err(fault) => {
                assert!(fault.to_string().ends_with("SELinux is not active on this host"));
            }
        }
    }
}
