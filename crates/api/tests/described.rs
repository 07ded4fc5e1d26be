//! Every operation of the API, asked what its description allows and what it does not: no 5xx, and no
//! answer that is not described.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Bed, Launch};

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance";
/// Requests that each operation gets of each kind.
const EXAMPLES: &str = "10";

/// `.ci/test` installs it beside what is built.
fn schemathesis() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_api")).parent().and_then(Path::parent).unwrap();
    let program = beside.join("schemathesis/bin/schemathesis");
    let how =
        "python3 -m venv target/schemathesis; target/schemathesis/bin/pip install schemathesis";
    assert!(program.exists(), "no {}: {how}", program.display());
    program
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_answers_as_it_is_described_and_never_with_5xx() {
    let program = schemathesis();
    let fleet = Bed::fleet(1, |launch| launch).await;
    for bed in [Bed::embedded(Launch::default()).await, fleet] {
        let mut command = Command::new(&program);
        command
            .arg("run")
            .arg(format!("{}/api/v1/openapi.json", bed.first().control))
            .args(["-H", &format!("Authorization: Bearer {}", bed.admin)])
            .args(["--checks", CHECKS])
            // These have no end; they have tests of their own.
            .args(["--exclude-path-regex", "/stream$"])
            .args(["--phases", "coverage,fuzzing"])
            // Wrong keys would only show that whoever guesses is silenced.
            .args(["--generation-with-security-parameters", "false"])
            .args(["--max-examples", EXAMPLES, "--seed", "1", "--generation-database", "none"])
            .args(["--request-timeout", "30", "--no-color"])
            .current_dir(bed.first().dir());
        let ran = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        let end: Vec<&str> = said.lines().rev().take(25).collect();
        let end: Vec<&str> = end.into_iter().rev().collect();
        eprintln!("{}:\n{}", bed.size, end.join("\n"));
        assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    }
}
