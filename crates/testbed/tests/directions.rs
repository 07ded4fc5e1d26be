//! What each package may be built on, as docs/ARCHITECTURE.md promises.

use std::collections::BTreeSet;
use std::process::Command;

/// The packages in `package`'s graph of normal and build dependencies, without itself.
fn built_on(package: &str) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--offline", "--prefix", "none", "--format", "{p}"])
        .args(["--edges", "normal,build", "--package", package])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| *name != package)
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_package_is_built_only_on_those_before_it() {
    for (package, expected) in [
        ("ipwarden-engine", &[] as &[&str]),
        ("ipwarden-core", &["ipwarden-engine"]),
        ("ipwarden-guard", &["ipwarden-engine"]),
        ("ipwarden-scheduler", &["ipwarden-core", "ipwarden-engine"]),
        ("ipwarden-ipctl", &["ipwarden-core", "ipwarden-engine"]),
        (
            "ipwarden-api",
            &["ipwarden-core", "ipwarden-engine", "ipwarden-guard", "ipwarden-scheduler"],
        ),
    ] {
        let built_on = built_on(package);
        let ours: Vec<&str> =
            built_on.iter().filter(|name| name.starts_with("ipwarden-")).map(|s| &**s).collect();
        assert_eq!(ours, expected, "{package}");
    }
}

#[test]
fn an_application_that_wraps_itself_gets_no_database() {
    let guard = built_on("ipwarden-guard");
    for stranger in ["diesel", "diesel-async", "tokio-postgres", "libsqlite3-sys", "maxminddb"] {
        assert!(!guard.contains(stranger), "the guard brings {stranger}");
    }
    assert!(!built_on("ipwarden-engine").contains("actix-web"), "the engine brings actix-web");
}
