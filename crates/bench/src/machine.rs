//! Where and with what was measured.

use std::process::Command;

/// A paragraph about the machine, the versions and the date.
pub(crate) fn described() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cores = cores.max(online());
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = memory.lines().next().and_then(|line| line.split_whitespace().nth(1));
    let gigabytes = kilobytes.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) >> 20;
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, name)| name)
        .trim()
        .to_owned();
    let versions = [
        said("rustc", &["--version"]),
        said("wrk", &["-v"]),
        said("psql", &["--version"]),
        said("redis-server", &["--version"]),
        said("nginx", &["-v"]),
    ];
    let versions = versions.into_iter().flatten().collect::<Vec<_>>().join("; ");
    let python = include_str!("../django/requirements.txt").lines().collect::<Vec<_>>().join(", ");
    format!(
        "{}: {cores} cores ({processor}), {gigabytes} GiB, {}. ipwarden {}, profile `{}`; {versions}; \
         Python packages {python}.",
        said("date", &["-u", "+%F %H:%M UTC"]).unwrap_or_default(),
        said("uname", &["-sr"]).unwrap_or_default(),
        env!("CARGO_PKG_VERSION"),
        profile(),
    )
}

/// The machine's cores, however few this process may use.
fn online() -> usize {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines().filter(|line| line.starts_with("processor")).count()
}

/// The directory of a profile is called after it.
fn profile() -> String {
    let own = std::env::current_exe().ok();
    let directory = own.as_deref().and_then(|own| own.parent()?.file_name());
    directory.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// The first line that a program says, wherever it says it.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).ok()?;
    let line = text.lines().next()?.trim();
    Some(line.split(" Copyright").next().unwrap_or(line).to_owned())
}
