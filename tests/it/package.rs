//! The files of the Debian package that no test of the package itself needs to build.

use std::fs;
use std::path::Path;

use crate::harness::dir::TempDir;
use crate::harness::program::run;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_changelog_begins_with_this_version() {
    let changelog = read("contrib/debian/changelog");
    let first = format!("upslot ({}-", env!("CARGO_PKG_VERSION"));
    assert!(changelog.starts_with(&first), "expected {first}");
}

/// What an operator has to edit: with a secret, there is no error and no warning.
#[test]
fn the_installed_configuration_lacks_only_a_secret() {
    let dir = TempDir::new();
    let path = dir.path().join("config.yml");
    let store = format!("storage_path: {}", dir.path().join("store").display());
    let text = read("contrib/debian/config.yml").replace("storage_path: /var/lib/upslot", &store);
    fs::write(&path, &text).unwrap();
    let (code, output) = run(&["--check-config"], dir.path());
    assert_eq!(code, Some(1), "{output}");
    assert_eq!(output.lines().count(), 1, "{output}");
    assert!(output.contains("component_secret"), "{output}");
    fs::write(&path, text.replace("change me", "twelve blue cats")).unwrap();
    let (code, output) = run(&["--check-config"], dir.path());
    assert_eq!(code, Some(0), "{output}");
    assert!(
        !output.contains("error") || output.contains("no errors"),
        "{output}"
    );
}
